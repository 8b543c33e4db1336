"""Servers that do what no library would, and short ways to ask servers, for the tests of the server backend."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing, contextmanager

import pytest
from llm_tiny import server_settings, tiny_settings

from recbole_hnlm.llm.factory import load_backend
from recbole_hnlm.llm.protocol import Decoding, Prompt
from recbole_hnlm.llm.replies import profile_format
from recbole_hnlm.utils.errors import BackendError

FORMAT = profile_format(tiny_settings())
DECODING = Decoding(FORMAT.max_new_tokens, 0.0, 0, FORMAT.schema)


@contextmanager
def raw_server(respond):
    """Serve on loopback what no library would: ``respond(connection)`` is called once the whole request has been read."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    stopped = threading.Event()

    def read_request(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, body = data.split(b"\r\n\r\n", 1)
        length = next(
            (int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)

    def work(connection):
        with connection:
            connection.settimeout(10)
            try:
                read_request(connection)
                respond(connection)
            except OSError:
                pass  # the client has gone

    def serve():
        while not stopped.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=work, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        stopped.set()
        thread.join()
        listener.close()


def prompts_of(count):
    return [Prompt("Describe.", json.dumps({"id": place})) for place in range(count)]


def generate(url, count=1, **changes):
    with closing(load_backend(server_settings(url, **changes))) as backend:
        return backend.generate(prompts_of(count), DECODING)


def fault_of(url, **changes):
    with pytest.raises(BackendError) as caught:
        generate(url, **changes)
    line = str(caught.value)
    assert line.isprintable(), line  # one line, nothing that a terminal obeys
    assert len(line) < 700
    return line


def unused_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]
