"""A page that greets, and says where it runs: the smallest thing worth putting into a container."""

import os
import socket

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    greeting = os.environ.get("GREETING", "Hello")
    return f"{greeting} from {socket.gethostname()}\n"


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=8000)
