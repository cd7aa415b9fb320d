"""Serves llama.cpp's CPU backend to other processes; needs llama-cpp-python built with GGML_RPC.

  python llama_cpp_rpc_server.py HOST:PORT THREADS
"""

import ctypes
import pathlib
import sys

import llama_cpp

CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


def load_ggml(name):
    """One of ggml's libraries, the very one that llama_cpp uses."""
    return ctypes.CDLL(str(pathlib.Path(llama_cpp.__file__).parent / "lib" / f"lib{name}.so"))


def main() -> None:
    endpoint, n_threads = sys.argv[1], int(sys.argv[2])
    llama_cpp.llama_backend_init()
    ggml = load_ggml("ggml")
    ggml.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    devices = (ctypes.c_void_p * 1)(ggml.ggml_backend_dev_by_type(CPU))
    load_ggml("ggml-rpc").ggml_backend_rpc_start_server(
        endpoint.encode(), None, ctypes.c_size_t(n_threads), ctypes.c_size_t(1), devices)


if __name__ == "__main__":
    main()
