"""What describes an artifact to people: cards in Markdown, pages in HTML."""
