'use strict';
// Node: the package sqlite3. With a second argument it knows nothing of the VFS, as an application that `run` starts.
const { promisify } = require('node:util');
const sqlite3 = require('sqlite3');

async function write(board, who) {
  const exec = promisify(board.exec).bind(board);
  const get = promisify(board.get).bind(board);
  for (let n = 0; n < 20; n++) {
    await exec('BEGIN IMMEDIATE');
    await exec(`INSERT INTO tasks VALUES ('${who}')`);
    await exec('COMMIT');
  }
  const [status] = Object.values((await get('PRAGMA kanban_status')) ?? ['none']);
  if (!status.includes('"vfs":"kanban/')) throw new Error(`past the VFS: ${status}`);
}

const [file, run] = process.argv.slice(2);
if (run) {
  const board = new sqlite3.Database(file);
  board.configure('busyTimeout', 5000);
  write(board, 'node, run');
} else {
  const loader = new sqlite3.Database(':memory:');
  loader.loadExtension(process.env.KANBAN_VFS, (error) => {
    if (error) throw error;
    const mode = sqlite3.OPEN_READWRITE | sqlite3.OPEN_CREATE | sqlite3.OPEN_URI;
    const board = new sqlite3.Database(`file:${file}?vfs=kanban`, mode);
    board.configure('busyTimeout', 5000);
    write(board, 'node');
  });
  console.log(`Node ${process.version}, sqlite3 ${require('sqlite3/package.json').version}, SQLite ${sqlite3.VERSION}`);
}
