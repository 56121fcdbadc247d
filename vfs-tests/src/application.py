"""An application that knows nothing of the VFS. Each worker has a board of its own, begins to write, and looks at a file of
its board, by which POSIX drops its locks. Then a stranger writes into its transaction, or is refused."""

import multiprocessing, os, sqlite3, subprocess, sys

STRANGER = '''
import sqlite3, sys
board = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    board.execute("INSERT INTO tasks VALUES (2)")
    print("broke in")
except sqlite3.OperationalError as error:
    print(error)
'''

def work(name, directory):
    path = os.path.join(directory, name + ".db")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA journal_mode=wal")
    holder.execute("CREATE TABLE tasks (n INTEGER)")
    holder.execute("BEGIN IMMEDIATE")
    holder.execute("INSERT INTO tasks VALUES (1)")
    open(path + "-shm", "rb").close()
    stock = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD" and not k.startswith("KANBAN_")}
    command = [sys.executable, "-c", STRANGER, path]
    said = subprocess.run(command, env=stock, stdout=subprocess.PIPE, text=True, timeout=60).stdout.strip()
    holder.execute("COMMIT")
    print(name, said, flush=True)

if __name__ == "__main__":
    directory = sys.argv[1]
    if len(sys.argv) > 2:
        work(sys.argv[2], directory)
        sys.exit()
    work("the first", directory)
    for method in multiprocessing.get_all_start_methods():
        worker = multiprocessing.get_context(method).Process(target=work, args=(method, directory))
        worker.start()
        worker.join(60)
        with multiprocessing.get_context(method).Pool(1) as pool:
            pool.apply(work, (method + " pool", directory))
    subprocess.run([sys.executable, __file__, directory, "subprocess"], check=True, timeout=60)
    shell = '"$0" "$1" "$2" "shell"'
    subprocess.run(["sh", "-c", shell, sys.executable, __file__, directory], check=True, timeout=60)
