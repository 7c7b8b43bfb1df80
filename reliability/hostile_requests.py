"""Hostile requests to `nestkala serve`: paths outside the folder, bombs, slow clients, many requests at once."""

import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

from .bombs import bombs, largest_taken
from .finding import Finding
from .pictures import encoded, noise
from .web_server import INSIDE, OUTSIDE, SECRET, Answer, Server, ask, entries, make_index, serving

_USUAL = ("/encode?text=a%20dog", "/search?code=0f0f0f&bits=8", "/search?code=0f0f0f&not=000000&bits=8", "/browse")
_ROUTES = ("/thumbnail/", "/photograph/", "/original/", "/about/")

_SEARCH = "search?code=000000&"
_INVALID_FILTERS = (
    "",
    "%00",
    "=",
    "a",
    "=a",
    "folder%3E2019",
    "a!b=c",
    "nokey=1",
    "%20" * 400,
    "a=" + "b" * 500,
    "%FF=%FE",
)
_ODD_FILTERS = (
    *("date=" + mark * 490 for mark in ("9", " ", "(", "\0", "\u0663", "\U0001f415")),
    *("folder=" + value for value in ("../..", "/", "a/" * 240, "' OR 1=1 --", "%s", "{}", "a\0b")),
    *(
        f"size{sign}{value}"
        for sign in ("=", "<", "!=")
        for value in ("nan", "-inf", "1e999", "9" * 490, "1_0", "0x10")
    ),
    "date" + " " * 490 + "=",
    "date=" + " " * 480 + "x",
)


def run(folder: Path) -> list[Finding]:
    """Start a server on a small index created in `folder`, send everything, and report."""
    with serving(make_index(folder)) as server:
        port = server.port
        for first in _USUAL:  # the first of a kind loads what it needs
            ask(port, first)
        ask(port, "/encode", encoded(noise(0, 300), "PNG"))
        idle = server.memory("VmRSS")
        findings = [
            refused_paths(port, folder / "photos" / "secret.txt"),
            served_images(port),
            refused_images(port),
            refused_sizes(port),
            refused_pages(port),
            refused_numbers(port),
            odd_filters(server),
            slow_clients(port, clients=150, patience=40),
            parallel_requests(server, 200),
        ]
        once = server.memory("VmRSS")
        return [*findings, parallel_requests(server, 200), memory(server, idle, once)]


def refused_paths(port: int, secret: Path) -> Finding:
    """Paths to files, in all encodings and under all routes, and forged tickets."""
    answers = {target: ask(port, target) for target in _spellings(port, secret)}
    let_in = [target for target, answer in answers.items() if answer.status not in (400, 404) or SECRET in answer.body]
    return Finding(
        "path traversal in all encodings, and forged tickets",
        f"{len(answers) - len(let_in)} of {len(answers)} refused",
        "all",
        not let_in,
        {"let in": let_in},
    )


def _spellings(port: int, secret: Path) -> list[str]:
    whole = secret.resolve().as_posix()
    slashes = ["/", "%2f", "%252f", "\\", "%5c", "%255c", "%c0%af", "%u2215", "//", "/./", "/;/"]
    dots = ["..", "%2e%2e", ".%2e", "%252e%252e", "..%00", "....", "%c0%ae%c0%ae", "..;"]
    climbs = [(dot + slash) * depth for dot in dots for slash in slashes for depth in (1, 6)]
    files = ["secret.png", "photos/secret.txt", whole.lstrip("/"), "etc/passwd"]
    paths = [climb + name for climb in climbs for name in files]
    paths += [whole, f"/{whole}", f"file://{whole}", quote(whole, safe=""), "0.png", "a/0.png", "%00", "A" * 60_000]
    ticket = entries(port)[0]["thumbnail"].removeprefix("thumbnail/")
    others = "Lp0fxa4kCN0fAqSPu3bC42EvMC5wbmc="  # of another server, for a/0.png
    tickets = [ticket[:-4], ticket[:8], f"AAAA{ticket}", f"{ticket}/..", f"{ticket}%2f..%2fsecret.png", others]
    return [f"{route}{path}" for path in paths for route in ("/", *_ROUTES)] + [
        f"{route}{ticket}" for ticket in tickets for route in _ROUTES
    ]


def served_images(port: int) -> Finding:
    """Only those entries of the index that are images in its folder are served."""
    found = entries(port)
    tickets = {result["image"]: result["thumbnail"].removeprefix("thumbnail/") for result in found}
    by_route = [
        sorted(name for name, ticket in tickets.items() if ask(port, f"{route}{ticket}").status == 200)
        for route in ("/thumbnail/", "/photograph/", "/original/")
    ]
    served = sorted(set().union(*by_route))
    return Finding(
        "index entries that point outside the folder, by name or link, or not at an image",
        f"{len(found) - len(served)} of {OUTSIDE} refused; {len(served)} of {len(INSIDE)} images served",
        "no file outside, every image inside",
        len(found) == len(INSIDE) + OUTSIDE and all(names == INSIDE for names in by_route),
        {"served": served},
    )


def refused_images(port: int) -> Finding:
    """Files that are not images, or too large, are refused with a sentence."""
    return _refused(
        "decompression bombs, formats that start other programs, files that are not images",
        {name: ask(port, "/encode", data) for name, data in bombs().items()},
        {400, 413, 415},
    )


def refused_sizes(port: int) -> Finding:
    """Uploads that are declared, or turn out, to be larger than allowed."""
    chunks = (b"f4240\r\n" + bytes(1_000_000) + b"\r\n") * 30 + b"0\r\n\r\n"
    answers = {
        "declared as 100 GB": ask(port, "/encode", b"", {"Content-Length": "99999999999"}),
        "30 MB": ask(port, "/encode", bytes(30_000_000)),
        "30 MB in chunks": ask(port, "/encode", chunks, {"Transfer-Encoding": "chunked"}),
    }
    return _refused("uploads of 30 MB or more", answers, {413})


def refused_pages(port: int) -> Finding:
    """Requests from other sites' pages, and with host names that are not the server's."""
    answers = {
        "foreign host": ask(port, "/", None, {"Host": f"stranger.example:{port}"}),
        "host that begins like ours": ask(port, "/", None, {"Host": f"127.0.0.1.stranger.example:{port}"}),
        "empty host": ask(port, "/", None, {"Host": ""}),
        "foreign origin": ask(port, "/encode", b"", {"Origin": "https://stranger.example"}),
        "null origin": ask(port, "/encode", b"", {"Origin": "null"}),
        "other port": ask(port, "/encode", b"", {"Origin": "http://127.0.0.1:1"}),
    }
    return _refused("requests with foreign Host or Origin headers", answers, {400, 403})


def refused_numbers(port: int) -> Finding:
    """Offsets, numbers, codes and filters that are too large, too many, or malformed."""
    huge = ("-1", "10001", "9" * 30, "9" * 5000, "1e9", "nan", "0x10", "%00", "%F0%9F%90%95", "1;DROP", "")
    asked = [f"/{route}{name}={value}" for route in ("browse?", _SEARCH) for name in ("offset", "k") for value in huge]
    asked += [f"/{_SEARCH}{name}={value}" for name in ("bits", "shortlist") for value in huge[:-1]]
    asked += [f"/{route}where={where}" for route in ("browse?", _SEARCH) for where in _INVALID_FILTERS]
    asked += [f"/{route}{'&'.join(['where=a=b'] * 9)}" for route in ("browse?", _SEARCH)]
    asked += [f"/search?code={code}" for code in ("", "0", "zz", "0" * 8, "0" * 50_000, "%00", "-1", "../..")]
    asked += [f"/{_SEARCH}{'&'.join(['not=000000'] * 9)}", "/search", "/search?class=no%20such%20class"]
    asked += [f"/encode?image={name}" for name in ("", "%00", "..%2fsecret.txt", "%ff%fe", "A" * 50_000, "[]", "{}")]
    answers = {f"{number} {target[:60]}": ask(port, target) for number, target in enumerate(asked)}
    return _refused("invalid offsets, numbers, codes and filters", answers, {400, 404})


def odd_filters(server: Server) -> Finding:
    """Long filters, and filters that look like code, are treated as any other condition."""
    asked = [f"/{route}where={quote(where)}" for route in ("browse?", _SEARCH) for where in _ODD_FILTERS]
    answers = {target[:80]: ask(server.port, target) for target in asked}
    wrong = {target: answer.status for target, answer in answers.items() if answer.status not in (200, 400)}
    slowest = max(answer.seconds for answer in answers.values())
    return Finding(
        "long filters, and filters that look like SQL or patterns",
        f"{len(answers) - len(wrong)} of {len(answers)} answered, the slowest in {slowest:.2f} s",
        "all within 2 s, no traceback was printed",
        not wrong and slowest <= 2 and "Traceback" not in server.errors.read_text(),
        {"others": wrong},
    )


def _refused(what: str, answers: dict[str, Answer], statuses: set[int]) -> Finding:
    taken = [name for name, answer in answers.items() if answer.status not in statuses or not answer.said]
    return Finding(
        what,
        f"{len(answers) - len(taken)} of {len(answers)} refused, the slowest in "
        f"{max(answer.seconds for answer in answers.values()):.2f} s",
        "all",
        not taken,
        {name: f"{answer.status} {answer.said}" for name, answer in answers.items()},
    )


def slow_clients(port: int, clients: int, patience: float) -> Finding:
    """Clients send headers and bodies a byte at a time, or do not read answers; others must still be served.

    Args:
        port: port of the server.
        clients: number of clients, a third of each kind.
        patience: seconds within which all must be closed.
    """
    head, body = (
        b"GET / HTTP/1.1\r\nX: ",
        b"POST /encode HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n",
    )
    unread = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.socket()) for _ in range(clients)]
        for number, connection in enumerate(slow):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # a few unread answers are enough
            connection.connect(("127.0.0.1", port))
            connection.setblocking(False)
            with suppress(OSError):  # closed already
                connection.send((head, body, unread)[number % 3])
        started, held, answers, image = time.perf_counter(), slow, list[Answer](), encoded(noise(0, 300), "PNG")
        while held and time.perf_counter() - started < patience:
            held = [connection for connection in held if _still_open(connection)]
            answers += [ask(port, "/"), ask(port, "/encode?text=a%20dog"), ask(port, "/encode", image)]
            time.sleep(0.25)
        seconds = time.perf_counter() - started
    answered = sum(answer.status == 200 for answer in answers)
    return Finding(
        f"{clients} clients that send a byte at a time or never read the answer, and others meanwhile",
        f"{clients - len(held)} closed in {seconds:.0f} s; {answered} of {len(answers)} others answered, the slowest "
        f"in {max(answer.seconds for answer in answers):.2f} s",
        f"all closed in {patience:g} s, all others answered",
        not held and answered == len(answers),
    )


def _still_open(connection: socket.socket) -> bool:
    try:
        connection.send(b"a")
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def parallel_requests(server: Server, count: int) -> Finding:
    """Uploads of several MB and the most expensive allowed ones, sentences, searches and thumbnails, all at once."""
    port = server.port
    photographs = [encoded(noise(seed, 1500), "PNG") for seed in range(4)]
    uploads = [*largest_taken().values(), *photographs * count]
    thumbnails = [result["thumbnail"] for result in entries(port) if result["image"] in INSIDE]

    def request(number: int) -> Answer:
        match number % 4:
            case 0:
                return ask(port, "/encode", uploads[number // 4])
            case 1:
                return ask(port, "/encode?text=a%20photo%20of%20a%20dog")
            case 2:
                return ask(port, "/search?code=0f0f0f&bits=8")
        return ask(port, f"/{thumbnails[number % len(thumbnails)]}")

    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(request, range(count)))
    statuses = Counter(answer.status for answer in answers)
    size, lost = len(photographs[0]) / 2**20, count - statuses[200] - statuses[503]
    return Finding(
        f"{count} requests at once, a quarter of them uploads of {size:.0f} MiB or 50 million pixels",
        f"{statuses[200]} answered, {statuses[503]} told to retry, {lost} lost; the slowest in "
        f"{max(answer.seconds for answer in answers):.1f} s",
        "none lost, the page answers afterwards, no traceback was printed",
        not lost and ask(port, "/").status == 200 and "Traceback" not in server.errors.read_text(),
        {"statuses": dict(statuses)},
    )


def memory(server: Server, idle: int, once: int) -> Finding:
    """Memory of the server in MiB: `idle` before, the maximum, `once` after everything, and after 200 more requests."""
    worst, twice = server.memory("VmHWM"), server.memory("VmRSS")
    return Finding(
        "server memory: idle, peak, after everything above, and after 200 more requests",
        f"{idle:,}, {worst:,}, {once:,} and {twice:,} MiB",
        "at most 2,048 MiB more at the peak and 384 MiB more afterwards",
        worst - idle <= 2048 and max(once, twice) - idle <= 384,
    )
