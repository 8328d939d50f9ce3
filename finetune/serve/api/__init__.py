"""The HTTP side of the server: access, requests, routes and the answers on the wire."""
