"""Runs vLLM's server inside the environment of vLLM, which has no harness: a script that imports nothing of ours.

The server stops with the process that started it, however that ends: that process holds the other end of this script's
standard input, and when it closes, the whole process group of the server is killed.
"""

import os
import runpy
import signal
import sys
import threading

SERVER = "vllm.entrypoints.openai.api_server"


def end_with_the_parent() -> None:
    while os.read(0, 1):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    sys.argv[0] = SERVER
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)
