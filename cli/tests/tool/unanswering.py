"""Stands in for a network file system whose server has gone away: a FUSE server that no longer answers once a process has a
file on it open. It prints that process's id, and ends when its input does, or after a minute. fuse(4)

usage: unanswering.py DIRECTORY
"""
import ctypes
import os
import signal
import struct
import sys
import threading

LOOKUP, FORGET, GETATTR, OPEN, INIT, INTERRUPT, BATCH_FORGET = 1, 2, 3, 14, 26, 36, 42
PR_SET_PDEATHSIG = 1
directory = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"unanswering", directory.encode(), b"fuse", 0, options) != 0:
    print("no", os.strerror(ctypes.get_errno()), flush=True)
    sys.exit()
# The kernel releases processes that wait for a server that has ended.
signal.alarm(60)
answers = True


def attributes(node):
    mode = 0o40755 if node == 1 else 0o100644
    return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def serve():
    while True:
        request = os.read(device, 1 << 20)
        _, operation, unique, node = struct.unpack("<IIQQ", request[:24])
        if not answers or operation in (FORGET, INTERRUPT, BATCH_FORGET):
            continue
        error, body = 0, b""
        if operation == INIT:
            body = struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 0, 0, 65536, 1, 0, 0, *[0] * 8)
        elif operation == LOOKUP:
            body = struct.pack("<4Q2I", 2, 0, 0, 0, 0, 0) + attributes(2)
        elif operation == GETATTR:
            body = struct.pack("<Q2I", 0, 0, 0) + attributes(node)
        elif operation == OPEN:
            body = struct.pack("<Q2I", 1, 0, 0)
        else:
            error = -38  # ENOSYS
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


threading.Thread(target=serve, daemon=True).start()
reader, writer = os.pipe()
opener = os.fork()
if opener == 0:
    os.close(device)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.open(f"{directory}/file", os.O_RDONLY)
    os.write(writer, b"x")
    signal.pause()
os.read(reader, 1)
answers = False
print(opener, flush=True)
sys.stdin.read()
os._exit(0)
