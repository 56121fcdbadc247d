'use strict';
// The SQLite VFS `kanban` for better-sqlite3 and node:sqlite. index.d.ts says what each function promises.

const { existsSync } = require('node:fs');
const { join } = require('node:path');
const { pathToFileURL } = require('node:url');

/** The classes whose SQLite has the VFS as its default one. */
const defaults = new WeakSet();
/** The classes whose SQLite has the VFS. */
const registered = new WeakSet();

/** Whether this Node's C library is not glibc. */
function isMusl() {
  if (process.platform !== 'linux') return false;
  // A report's header names the version of glibc, and is the only thing in Node that does. The rest of a report would ask
  // the DNS for the name of each open socket's peer, and wait for it.
  const { excludeNetwork } = process.report;
  process.report.excludeNetwork = true;
  try {
    return process.report.getReport().header.glibcVersionRuntime === undefined;
  } finally {
    process.report.excludeNetwork = excludeNetwork;
  }
}

/** Of the prebuilt files, the directory of this machine's: linux-x64, linux-arm64-musl, darwin-arm64, win32-x64. */
function platform() {
  return `${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`;
}

/** What the system calls the extension. */
const NAMES = { darwin: 'libkanban_vfs.dylib', win32: 'kanban_vfs.dll' };

function loadablePath() {
  const directory = platform();
  const file = join(__dirname, 'prebuilt', directory, NAMES[process.platform] ?? 'libkanban_vfs.so');
  if (!existsSync(file)) {
    throw new Error(
      `kanban-vfs has no extension for ${directory} (${file}): build it with cargo, and load ` +
        'target/release/libkanban_vfs by loadExtension, as docs/clients.md shows',
    );
  }
  return file;
}

/** node:sqlite's class, and not better-sqlite3's, has that method. */
const isOfNode = (Database) => typeof Database.prototype.enableLoadExtension === 'function';

function register(Database, { makeDefault = !isOfNode(Database) } = {}) {
  if ((makeDefault ? defaults : registered).has(Database)) return;
  if (makeDefault && isOfNode(Database)) {
    throw new Error('node:sqlite loads no other entry point: name the VFS by kanban_vfs.uri(file)');
  }
  const loader = isOfNode(Database)
    ? new Database(':memory:', { allowExtension: true })
    : new Database(':memory:');
  try {
    if (makeDefault) loader.loadExtension(loadablePath(), 'sqlite3_kanbanvfs_default_init');
    else loader.loadExtension(loadablePath());
  } finally {
    loader.close();
  }
  registered.add(Database);
  if (makeDefault) defaults.add(Database);
}

function uri(file, parameters = {}) {
  const name = file instanceof URL ? new URL(file) : pathToFileURL(file);
  const given = { vfs: 'kanban', ...parameters };
  if (given.vfs !== 'kanban') throw new Error(`another VFS than kanban: ${given.vfs}`);
  for (const [key, value] of Object.entries(given)) name.searchParams.set(key, String(value));
  // To SQLite a plus is a plus, https://www.sqlite.org/uri.html
  name.search = name.search.replace(/\+/g, '%20');
  return name.href;
}

function open(Database, file, options = {}) {
  register(Database);
  // node:sqlite's busy timeout is 0 unless it is set: nobody would wait for its turn. better-sqlite3's is this one.
  const given = { timeout: 5000, ...options };
  const isFile = file !== ':memory:' && file !== '';
  return new Database(isFile && isOfNode(Database) ? uri(file) : file, given);
}

function status(database) {
  // A pragma of a VFS is one row, whose column has the pragma's name. Another VFS answers none.
  const row = database.prepare('PRAGMA kanban_status').get();
  return row === undefined ? null : JSON.parse(Object.values(row)[0]);
}

module.exports = { loadablePath, open, register, status, uri };
