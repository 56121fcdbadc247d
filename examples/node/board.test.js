'use strict';
const assert = require('node:assert');
const { execFile } = require('node:child_process');
const { existsSync, mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const test = require('node:test');
const { promisify } = require('node:util');

const { available, open } = require('./board.js');

/** A directory of its own for each test. */
function directory(context) {
  const path = mkdtempSync(join(tmpdir(), 'kanban-vfs-'));
  context.after(() => rmSync(path, { recursive: true }));
  return path;
}

assert.notStrictEqual(available().length, 0, 'npm install');

for (const client of available()) {
  test(`${client}: eight processes write to one board and lose nothing`, { timeout: 120_000 }, async (context) => {
    // A name that is not a URI's.
    const file = join(directory(context), 'a board? #1 100%.db');
    const program = join(__dirname, 'board.js');
    const writer = (n) => promisify(execFile)(process.execPath, [program, file, `w${n}`, '20', client]);
    // The sidecar is there while somebody has the board open.
    let wasUsed = false;
    const watch = setInterval(() => { wasUsed ||= existsSync(`${file}-lock`); }, 1);
    await Promise.all([...Array(8).keys()].map(writer));
    clearInterval(watch);
    assert.ok(wasUsed, 'the VFS was not used');

    const board = open(file, client);
    const { n, who } = board.prepare('SELECT count(*) AS n, count(DISTINCT who) AS who FROM tasks').get();
    assert.deepStrictEqual([n, who], [160, 8]);
    assert.strictEqual(board.prepare('PRAGMA integrity_check').get().integrity_check, 'ok');
    // A pragma of a VFS is one row, whose column has the pragma's name.
    const [status] = Object.values(board.prepare('PRAGMA kanban_status').get());
    assert.match(JSON.parse(status).vfs, /^kanban\//);
    board.close();
  });
}
