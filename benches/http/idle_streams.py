"""Holds many open streams, each after its first event, and waits to be ended. Prints "open" when all of them are."""

import asyncio
import sys


async def open_stream(host: str, port: int, request: bytes, gate: asyncio.Semaphore):
    async with gate:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"a stream was refused: {head[:200]!r}")
        await asyncio.wait_for(reader.readuntil(b"data: "), 30)
    return reader, writer


async def main(address: str, key: str, body_file: str, count: int) -> None:
    host, port = address.split(":")
    with open(body_file, "rb") as file:
        body = file.read()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    gate = asyncio.Semaphore(50)
    streams = await asyncio.gather(
        *(open_stream(host, int(port), head.encode() + body, gate) for _ in range(count))
    )
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for _, writer in streams:
        writer.close()


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
