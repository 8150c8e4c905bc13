"""Health probes of a server while a test does something else to it."""
import socket
import subprocess
import sys
import threading
import time

from serve_harness import check, head, read_response


class Prober:
    """Asks for the server's health every 10 ms, in a process of its own: a thread here would wait for the interpreter while
    another writes a body of 25 MiB, and count that as the server's."""

    def __init__(self, port):
        self.process = subprocess.Popen([sys.executable, __file__, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop(self):
        """(when, seconds) of each."""
        out, _ = self.process.communicate()
        check(self.process.returncode == 0 and out, "a probe was not answered with 200")
        return [tuple(map(float, line.split())) for line in out.splitlines()]


def probe(port):
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    made = []
    while not over.wait(0.01):
        begin = time.time()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
            s.sendall(head("GET", "/v1/health/ready"))
            check(read_response(s).status == 200, "ready")
        made.append(f"{begin} {time.time() - begin}")
    print("\n".join(made))


if __name__ == "__main__":
    probe(int(sys.argv[1]))
