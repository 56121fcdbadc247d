'use strict';
// A board through kanban-vfs, with node:sqlite where this node has it, else with better-sqlite3.
//
//   npm install
//   node board.js board.db ada 20

/** The extension; SQLite adds the suffix. */
const extension =
  process.env.KANBAN_VFS ?? require('node:path').join(__dirname, '../../target/release/libkanban_vfs');

/** node:sqlite: connection strings are URIs, which name the VFS. */
function openWithNodeSqlite(file) {
  const { DatabaseSync } = require('node:sqlite');
  const { pathToFileURL } = require('node:url');
  const loader = new DatabaseSync(':memory:', { allowExtension: true });
  loader.loadExtension(extension);
  loader.close();
  // timeout, in ms, is 0 unless it is set: then nobody would wait for his turn.
  return new DatabaseSync(`${pathToFileURL(file)}?vfs=kanban`, { timeout: 5000 });
}

/**
 * better-sqlite3: its SQLite knows no URIs, so the extension's second entry point makes the VFS the
 * default one. From then on each database of this process is opened through it.
 */
function openWithBetterSqlite3(file) {
  const Database = require('better-sqlite3');
  const loader = new Database(':memory:');
  loader.loadExtension(extension, 'sqlite3_kanbanvfs_default_init');
  loader.close();
  return new Database(file, { timeout: 5000 });
}

const clients = { 'node:sqlite': openWithNodeSqlite, 'better-sqlite3': openWithBetterSqlite3 };

/** The clients that this node has. */
function available() {
  const { isBuiltin } = require('node:module');
  return Object.keys(clients).filter((name) => {
    if (name.startsWith('node:')) return isBuiltin(name);
    try {
      return require.resolve(name) !== undefined;
    } catch {
      return false;
    }
  });
}

/** Opens a board, and makes it if it is new. */
function open(file, client = available()[0]) {
  const board = clients[client](file);
  board.exec('PRAGMA journal_mode=wal');
  board.exec('CREATE TABLE IF NOT EXISTS tasks (id INTEGER PRIMARY KEY, who TEXT, n INTEGER)');
  return board;
}

module.exports = { available, open };

if (require.main === module) {
  const [file, who, tasks, client] = process.argv.slice(2);
  const board = open(file, client);
  const insert = board.prepare('INSERT INTO tasks (who, n) VALUES (?, ?)');
  for (let n = 0; n < Number(tasks); n++) insert.run(who, n);
  board.close();
}
