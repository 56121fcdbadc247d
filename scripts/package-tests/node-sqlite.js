'use strict';
// Somebody who has a Node with node:sqlite installs kanban-vfs.
const assert = require('node:assert');
const { existsSync } = require('node:fs');
const { DatabaseSync } = require('node:sqlite');
const kanban = require('kanban-vfs');

const file = 'another? +#2 100%.db';
const board = kanban.open(DatabaseSync, file);
board.exec('CREATE TABLE tasks (title TEXT)');
board.prepare('INSERT INTO tasks VALUES (?)').run('tried');
assert.match(kanban.status(board).vfs, /^kanban\//);
assert.ok(existsSync(file));
// A parameter goes through, and one that the VFS does not know is refused.
const given = new DatabaseSync(kanban.uri(file, { kanban_busy_timeout: 200, kanban_begin: 'immediate' }));
assert.strictEqual(kanban.status(given).begin, 'immediate');
assert.strictEqual(kanban.status(given).busy_timeout_default_ms, 200);
assert.throws(() => new DatabaseSync(kanban.uri(file, { kanban_no_such: 'a b' })));
assert.throws(() => kanban.uri(file, { vfs: 'unix' }), /another VFS/);
assert.throws(() => kanban.register(DatabaseSync, { makeDefault: true }), /entry point/);
// Another VFS answers no status; nothing in memory becomes a file.
assert.strictEqual(kanban.status(new DatabaseSync(file)), null);
kanban.open(DatabaseSync, ':memory:').exec('CREATE TABLE t (x)');
assert.ok(!existsSync(':memory:'));
