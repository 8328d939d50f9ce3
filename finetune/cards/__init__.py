"""Descriptions of artifacts for people: cards in Markdown, pages in HTML."""
