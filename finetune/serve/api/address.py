"""The address of a server: bound before anything is loaded, and as clients write it."""

from __future__ import annotations

import errno
import ipaddress
import socket

from finetune.errors import InputError, PortInUseError
from finetune.recipe.options import ServeOptions


def bind(host: str, port: int, *, local_only: bool) -> socket.socket:
    """Bind the address without listening yet.

    Raises:
        PortInUseError: another program uses it.
        InputError: there is no such address, it may not be used, or other machines could reach it despite `local_only`.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError):
        raise InputError(
            f"There is no host {host!r}. Set --host to an address of this machine, such as {ServeOptions.host}"
        ) from None
    if local_only and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise InputError(
            f"{host} can be reached from other machines, which requires an API key. Add --api-key-file FILE, or "
            f"--host {ServeOptions.host}"
        )
    server_socket = socket.socket(family, socket.SOCK_STREAM)
    server_socket.setsockopt(
        socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
    )  # a restart does not have to wait for old connections
    try:
        server_socket.bind(address)
    except OSError as error:
        server_socket.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from None
        raise InputError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another --host or --port"
        ) from None
    return server_socket


def url_of(options: ServeOptions, server_socket: socket.socket) -> str:
    """The address of the server for clients."""
    scheme = "http" if options.ssl_certfile is None else "https"
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{scheme}://{host}:{server_socket.getsockname()[1]}"
