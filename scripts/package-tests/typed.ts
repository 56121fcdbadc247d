// A program of somebody who writes TypeScript: what `open` gives has the type of the class.
import Database = require('better-sqlite3');
import kanban = require('kanban-vfs');
import { DatabaseSync } from 'node:sqlite';

const better: Database.Database = kanban.open(Database, 'board.db', { timeout: 100 });
const rows: unknown[] = better.prepare('SELECT 1').all();
const node: DatabaseSync = kanban.open(DatabaseSync, 'board.db');
const status: Record<string, unknown> | null = kanban.status(node);
kanban.register(Database);
kanban.register(DatabaseSync, { makeDefault: false });
const name: string = kanban.uri('board.db', { kanban_busy_timeout: 200 });
// @ts-expect-error A parameter is a string or a number.
kanban.uri('board.db', { mode: {} });
// @ts-expect-error There is no such option.
kanban.register(Database, { default: true });
console.log(rows, status, name, kanban.loadablePath());
