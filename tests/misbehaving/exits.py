"""Calls `sys.exit` with a thread left that would keep Python from ending."""

import sys
import threading
import time


def run(stage):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    sys.exit(0)
