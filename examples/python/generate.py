"""Streams an answer, and goes on at another router if the one it speaks to goes away.

    python3 generate.py 127.0.0.1:8000 "Once upon a time"
    python3 generate.py 127.0.0.1:8000,127.0.0.1:8001 "Once upon a time"

README.md, one folder up, says how to make the stubs it imports. GATEFOLD_TLS_CA_FILE, and
_CERT_FILE with _KEY_FILE where callers need a certificate, make the connection TLS;
GATEFOLD_API_KEY is sent where keys are asked for.
"""

import os
import sys

import grpc
from gatefold.inference.v1 import inference_pb2, inference_pb2_grpc


def read_named_file(name):
    """The file that the environment names; None if it names none."""
    path = os.environ.get(name)
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


def open_channel(router):
    roots = read_named_file("GATEFOLD_TLS_CA_FILE")
    if roots is None:
        return grpc.insecure_channel(router)
    return grpc.secure_channel(router, grpc.ssl_channel_credentials(
        roots, read_named_file("GATEFOLD_TLS_KEY_FILE"), read_named_file("GATEFOLD_TLS_CERT_FILE")))


def run(stub, request):
    """One attempt at one router; keeps in `request` what another needs to go on. True: finished."""
    finished = False
    tokens = []
    rest = ""
    try:
        key = os.environ.get("GATEFOLD_API_KEY")
        metadata = [("authorization", f"Bearer {key}")] if key else None
        for response in stub.StreamGenerateText(request, metadata=metadata):
            event = response.WhichOneof("event")
            if event == "started":
                request.request.config.seed = response.started.seed
            elif event == "delta":
                if response.delta.n_tokens:
                    print(response.delta.text, end="", flush=True)
                    tokens.extend(response.delta.token_ids)
                else:  # left at the end; without the finish it comes again from the next router
                    rest = response.delta.text
            elif event == "finish":
                print(rest, end="", flush=True)
                finished = True
            elif event == "summary":
                usage = response.summary.usage
                print(f"\n{usage.prompt_tokens} prompt tokens, {usage.output_tokens} output tokens",
                      file=sys.stderr)
    except grpc.RpcError as error:
        # Another router may do better. A call can be cancelled by a router that goes in that moment.
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            raise
        print(f"\n{error.details()}", file=sys.stderr)
        request.resume_token_ids.extend(tokens)
        return finished
    return True


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: generate.py ROUTER[,ROUTER...] PROMPT")
    request = inference_pb2.StreamGenerateTextRequest()
    request.request.prompt.text = sys.argv[2]
    request.request.config.max_output_tokens = 64
    request.request.output.token_ids = True  # to resume from

    for router in sys.argv[1].split(","):
        with open_channel(router) as channel:
            if run(inference_pb2_grpc.InferenceServiceStub(channel), request):
                return
    sys.exit("no router could finish the answer")


if __name__ == "__main__":
    main()
