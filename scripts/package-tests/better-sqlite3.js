'use strict';
// Somebody who has better-sqlite3 installs kanban-vfs beside it.
const assert = require('node:assert');
const Database = require('better-sqlite3');
const kanban = require('kanban-vfs');

// A server with open sockets: Node's report would ask the DNS for the name of each one's peer, and wait for it.
const { getReport } = process.report;
let asks = false;
process.report.getReport = () => {
  asks ||= !process.report.excludeNetwork;
  return getReport.call(process.report);
};

const file = 'a board? #1 100%.db';
const board = kanban.open(Database, file);
board.exec('CREATE TABLE tasks (title TEXT)');
board.prepare('INSERT INTO tasks VALUES (?)').run('tried');
assert.match(kanban.status(board).vfs, /^kanban\//);
assert.strictEqual(kanban.status(board).version, require('kanban-vfs/package.json').version);
// By its name, and by the default VFS as well.
assert.ok(require('node:fs').existsSync(file));
assert.match(kanban.status(new Database(file)).vfs, /^kanban\//);
assert.strictEqual(kanban.open(Database, ':memory:').memory, true);
assert.strictEqual(new Database(file).prepare('SELECT count(*) AS n FROM tasks').get().n, 1);
assert.ok(!asks);
assert.strictEqual(process.report.excludeNetwork, false);
