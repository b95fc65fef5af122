"""The gateway beside nginx on the same work: processor time per request, and memory. Started by scripts/bench."""

import argparse
import base64
import io
import json
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from processes import HERE, Failed, Gateway, Program, load, look_alike, nginx

IDLE_STREAMS = 1_000
END_OF_STREAM = "data: [DONE]\\n\\n"


@dataclass(frozen=True)
class Work:
    """One kind of request, and how much of it makes a round."""

    name: str
    body: dict
    connections: int
    requests: int
    needle: str = '"usage":{'
    ending: str = "}"
    upstream_options: tuple[str, ...] = ()
    streams: bool = False


def user(content) -> list[dict]:
    return [{"role": "user", "content": content}]


def silence_in_base64(megabytes: int) -> str:
    """A wav file whose base64 has so many million characters."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(24_000)
        out.writeframes(bytes(megabytes * 750_000))
    return base64.b64encode(file.getvalue()).decode()


def streamed(gap_ms: int) -> dict:
    options = ("--chunks", "64", "--chunk-gap-ms", str(gap_ms))
    return {"ending": END_OF_STREAM, "upstream_options": options, "streams": True}


def works() -> list[Work]:
    text = {"model": "bench-text", "messages": user("Say hello to the person who reads this, in a few words.")}
    stream = text | {"stream": True, "stream_options": {"include_usage": True}}
    clip = {"type": "input_audio", "input_audio": {"format": "wav", "data": silence_in_base64(5)}}
    # Eight answers of two seconds are about a megabyte of base64.
    speech = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}, "n": 8}
    question = user([{"type": "text", "text": "What is said here?"}, clip])
    return [
        Work("small text request", text, connections=16, requests=40_000),
        Work("stream of 64 chunks in one burst", stream, connections=8, requests=6_000, **streamed(gap_ms=0)),
        Work("stream of 64 chunks, 2 ms apart", stream, connections=64, requests=1_200, **streamed(gap_ms=2)),
        Work("5 MB of audio in", {"model": "bench-audio", "messages": question}, connections=2, requests=300),
        Work(
            "1 MB of audio out",
            {"model": "bench-audio", "messages": user("Say hello.")} | speech,
            connections=2,
            requests=1_000,
        ),
    ]


@dataclass(frozen=True)
class Result:
    """Microseconds of processor time per request, round by round, and the highest resident memory."""

    work: Work
    requests: int
    gateway_us: list[float]
    nginx_us: list[float]
    gateway_peak_kib: int
    nginx_peak_kib: int
    metered: int

    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.gateway_us, self.nginx_us, strict=True)]


class Bench:
    def __init__(self, program: Path, directory: Path, rounds: int, share: float):
        self.program = program
        self.directory = directory
        self.rounds = rounds
        self.share = share
        self.running: list[Program] = []

    def close(self) -> None:
        for program in reversed(self.running):
            program.stop()
        self.running.clear()

    def start(self, work: Work) -> tuple[Gateway, Program, str, Path]:
        directory = self.directory / re.sub(r"\W+", "-", work.name)
        upstream, address = look_alike(self.program, directory, *work.upstream_options)
        self.running.append(upstream)
        gateway = Gateway(self.program, directory, address)
        self.running.append(gateway)
        proxy, proxy_address = nginx(directory / "nginx", address, buffering=not work.streams)
        self.running.append(proxy)
        body_file = directory / "request.json"
        body_file.write_text(json.dumps(work.body, separators=(",", ":")))
        return gateway, proxy, proxy_address, body_file

    def measure(self, work: Work) -> Result:
        gateway, proxy, proxy_address, body_file = self.start(work)
        requests = max(work.connections * 4, round(work.requests * self.share))

        def gateway_round(count: int) -> float:
            before_cpu, before = gateway.cpu_seconds(), gateway.settled()
            load(gateway.address, gateway.key, work, count, body_file)
            gateway.wait_until_all_is_written()
            metered = gateway.settled() - before
            if metered != count:
                raise Failed(f"{work.name}: {count} requests were answered and {metered} metered")
            return (gateway.cpu_seconds() - before_cpu) / count * 1e6

        def nginx_round(count: int) -> float:
            before = proxy.cpu_seconds()
            load(proxy_address, gateway.key, work, count, body_file)
            return (proxy.cpu_seconds() - before) / count * 1e6

        warm_up = max(work.connections * 2, requests // 4)
        gateway_round(warm_up)
        nginx_round(warm_up)
        ours, theirs = [], []
        for number in range(self.rounds):
            # In turn, so that a slow minute of the machine does not fall on one of them.
            if number % 2 == 0:
                ours.append(gateway_round(requests))
                theirs.append(nginx_round(requests))
            else:
                theirs.append(nginx_round(requests))
                ours.append(gateway_round(requests))
        sent = warm_up + requests * self.rounds
        if gateway.requests_in_the_ledger() != sent:
            raise Failed(f"{work.name}: {sent} requests, {gateway.requests_in_the_ledger()} in the ledger")
        peaks = gateway.memory_kib("VmHWM"), proxy.memory_kib("VmHWM")
        self.close()
        return Result(work, requests, ours, theirs, *peaks, sent)

    def idle_streams(self) -> tuple[int, int, int, int]:
        """Resident memory of the gateway and of nginx, each before and with the open streams, in KiB."""
        body = {"model": "bench-text", "messages": user("Wait."), "stream": True}
        options = ("--chunks", "4", "--chunk-gap-ms", "600000")
        work = Work("idle streams", body, connections=1, requests=1, upstream_options=options, streams=True)
        gateway, proxy, proxy_address, body_file = self.start(work)
        ours = self.held(gateway, gateway.address, gateway.key, body_file)
        theirs = self.held(proxy, proxy_address, gateway.key, body_file)
        self.close()
        return *ours, *theirs

    @staticmethod
    def held(program: Program, address: str, key: str, body_file: Path) -> tuple[int, int]:
        before = program.memory_kib("VmRSS")
        command = [sys.executable, str(HERE / "idle_streams.py"), address, key, str(body_file), str(IDLE_STREAMS)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            if client.stdout.readline() != "open\n":
                raise Failed(f"{IDLE_STREAMS} streams could not be opened on {program.name}")
            during = program.memory_kib("VmRSS")
            client.stdin.close()
            client.wait(30)
        return before, during


def spread(values: list[float], digits: int) -> str:
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def mib(kib: int) -> str:
    return f"{kib / 1024:,.1f}"


def tables(results: list[Result], idle: tuple[int, int, int, int]) -> str:
    lines = [
        "| work | requests a round | gateway, µs of CPU each | nginx, µs of CPU each | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    for result in results:
        digits = 1 if median(result.nginx_us) < 100 else 0
        cells = [spread(result.gateway_us, digits), spread(result.nginx_us, digits), spread(result.ratios(), 2)]
        lines.append(f"| {result.work.name} | {result.requests:,} | {' | '.join(cells)} |")
    lines += [
        "",
        "| memory | gateway, MiB | nginx, MiB |",
        "|---|---:|---:|",
        *(
            f"| peak, {result.work.name}, {result.work.connections} at a time | {mib(result.gateway_peak_kib)} "
            f"| {mib(result.nginx_peak_kib)} |"
            for result in results
        ),
    ]
    before, during, nginx_before, nginx_during = idle
    each, nginx_each = ((b - a) / IDLE_STREAMS for a, b in ((before, during), (nginx_before, nginx_during)))
    lines += [
        f"| at rest, then with {IDLE_STREAMS:,} open streams | {mib(before)}, {mib(during)} "
        f"| {mib(nginx_before)}, {mib(nginx_during)} |",
        f"| KiB for each open stream | {each:.1f} | {nginx_each:.1f} |",
        "",
        f"All {sum(result.metered for result in results):,} requests to the gateway were answered right, metered as "
        "completed, and are in its ledger.",
    ]
    return "\n".join(lines)


def page(text: str, rounds: int) -> str:
    models = [line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    version = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip()
    return f"""# Benchmarks

Written by `scripts/bench --write`. Run it on your own machine: the ratios carry over, the microseconds do not.

The gateway and nginx as a plain reverse proxy do the same work in the same run, in turn, on one core of their own; the
load generator (wrk) and the look-alike of OpenAI share another core. What counts is processor time per request of the
whole process, not wall time: it includes everything the gateway does that a plain proxy does not (checking the key,
limits, reading the usage, pricing, the journal, and the ledger, which is waited for). Medians of {rounds} rounds; in
parentheses the smallest and the largest. A ratio compares the two halves of one round.

nginx is set up to do as little as it can (`benches/http/nginx.conf`): one worker, connections to the upstream kept open,
no access log, request bodies passed on unbuffered, answers unbuffered for streams.

{text}

Machine: {models[0] if models else platform.processor()}, {platform.system()} {platform.release()}; {version}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    rounds, share = (3, 0.2) if arguments.quick else (5, 1.0)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.program.resolve().parent.parent))
    bench = Bench(arguments.program.resolve(), directory, rounds, share)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        results = []
        for work in works():
            print(f"... {work.name}", flush=True)
            results.append(bench.measure(work))
        print("... idle streams", flush=True)
        text = tables(results, bench.idle_streams())
    except Failed as failure:
        sys.exit(f"scripts/bench: {failure}")
    finally:
        bench.close()
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\n{text}")
    if arguments.write:
        arguments.write.parent.mkdir(exist_ok=True)
        arguments.write.write_text(page(text, rounds))
        print(f"\nwritten to {arguments.write}")


main()
