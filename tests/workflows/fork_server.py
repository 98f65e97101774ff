"""New processes of Python in which the libraries are imported already: forks of a server that has done nothing else.

``import monai`` takes longer than most of what the tests run in a process of its own. :class:`Forked` is ``subprocess.Popen``,
and :func:`run` is ``subprocess.run``, for command lines that begin with ``sys.executable``: ``-m MODULE``, ``-c CODE`` or a
script. Environment, folder, signals, session and standard streams are those that are asked for; only what is decided while the
libraries are imported or the interpreter starts (``OMP_NUM_THREADS``, ``PYTHONHASHSEED``) is the server's. The server ends with
the process that asks it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import inspect
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
WORKFLOWS = Path(__file__).parent


class Server:
    """The server of this process, started when it is first asked for."""

    connection: socket.socket | None = None
    process: subprocess.Popen

    @classmethod
    def ask(cls, request: dict[str, Any], streams: list[int]) -> tuple[int, int]:
        """Start a process; its id, and a descriptor that gives its exit status when it has ended."""
        if cls.connection is None:
            cls.connection, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            line = [sys.executable, __file__, str(end.fileno())]
            cls.process = subprocess.Popen(line, pass_fds=[end.fileno()], env=environment, stdin=subprocess.DEVNULL)
            end.close()
            atexit.register(cls.stop)
        status, written = os.pipe()
        data = json.dumps(request).encode()
        try:
            socket.send_fds(cls.connection, [str(len(data)).encode()], [*streams, written])
        finally:
            os.close(written)
        for start in range(0, len(data), 60_000):
            cls.connection.send(data[start : start + 60_000])
        return int(cls.connection.recv(64)), status

    @classmethod
    def stop(cls) -> None:
        """End the server, and wait for it."""
        cls.connection.close()
        cls.process.wait()


class Forked(subprocess.Popen):
    """``subprocess.Popen`` of a command line of Python, as a fork of the server."""

    def _execute_child(self, *arguments: Any, **more: Any) -> None:
        asked = inspect.signature(subprocess.Popen._execute_child).bind(self, *arguments, **more).arguments
        line = list(map(os.fspath, asked["args"]))
        if line[0] != sys.executable:
            raise ValueError(f"the command line must begin with {sys.executable}, got {line[0]}.")
        pipes = [asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        request = {
            "line": line[1:],
            "folder": os.path.abspath(asked["cwd"] or os.curdir),
            "environment": dict(os.environ if asked["env"] is None else asked["env"]),
            "ignored": [name for name in SIGNALS if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN],
            "session": asked["start_new_session"],
        }
        streams = [pipe if pipe != -1 else number for number, pipe in enumerate(pipes[i] for i in (0, 3, 5))]
        self.pid, self._status = Server.ask(request, streams)
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        status = os.read(self._status, 16)
        os.close(self._status)
        if not status:
            raise ChildProcessError("the server of forked processes has ended")
        return self.pid, int(status)

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run(
    line: list[Any], *, capture_output: bool = False, check: bool = False, input: Any = None, **options: Any
) -> subprocess.CompletedProcess:
    """``subprocess.run`` of a command line of Python, as a fork of the server."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Forked(line, **options) as process:
        try:
            out, err = process.communicate(input)
        except BaseException:  # as a test that takes too long
            if options.get("start_new_session"):
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started
            process.kill()
            raise
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, out, err)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_in_processes(number: int, line: list[Any], **environment: str) -> subprocess.CompletedProcess:
    """A command line of Python in several processes, as ``torchrun`` starts them, with all that they print."""
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    shared |= environment
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        ranks = []
        try:
            for rank in map(str, range(number)):
                own = {**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}
                ranks.append(Forked(line, stdout=out, stderr=err, env=own))
            while ranks:
                code = ranks[0].wait()
                ranks.pop(0)
                if code:
                    break
        finally:
            for left in ranks:
                left.kill()
                left.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(line, code, out.read(), err.read())


def import_libraries() -> None:
    """Import what commands and trainings need, and compile the vocabulary, without a thread."""
    import medvl.engines
    import medvl.evaluation
    import medvl.losses
    import medvl.text
    import medvl.workflows.embedding
    import medvl.workflows.labeling
    import medvl.workflows.packing
    import medvl.workflows.training
    from medvl import cli  # noqa: F401

    medvl.text.load_vocabulary()
    gc.collect()
    gc.freeze()  # else each process would copy the memory of what is imported when it collects garbage, and at its end


def serve(connection: socket.socket) -> dict[str, Any]:
    """Start a process for each request; returns the request in that process, and ends with the connection in the server."""
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for name in SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    running: dict[int, int] = {}
    while True:
        ready = select.select([connection, woken], [], [])[0]
        if woken in ready:
            woken.recv(4096)
            while running:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                descriptor = running.pop(pid)
                with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                    os.write(descriptor, str(status).encode())
                os.close(descriptor)
        if connection not in ready:
            continue
        head, descriptors, _, _ = socket.recv_fds(connection, 64, 4)
        if not head:
            os._exit(0)
        data = b""
        while len(data) < int(head):
            data += connection.recv(60_000)
        *streams, status_descriptor = descriptors
        pid = os.fork()
        if pid:
            for descriptor in streams:
                os.close(descriptor)
            running[pid] = status_descriptor
            connection.send(str(pid).encode())
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        for descriptor in (*descriptors, *running.values()):
            os.close(descriptor)
        for end in (connection, woken, wake):
            end.close()
        return json.loads(data)


def become(request: dict[str, Any]) -> None:
    """Run a command line in this process, as Python does."""
    usual = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
    for name in SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN if name in request["ignored"] else usual[name])
    if request["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    random.seed()
    sys.modules["numpy"].random.seed()
    first, *rest = request["line"]
    sys.path.remove(str(WORKFLOWS))
    if first == "-m":
        sys.argv = rest
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, str(Path(first).absolute().parent))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    import_libraries()
    become(serve(socket.socket(fileno=int(sys.argv[1]))))
