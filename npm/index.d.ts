/**
 * The SQLite VFS `kanban` for better-sqlite3 and node:sqlite: one fair, bounded, crash-safe write lock for each database,
 * across all processes.
 */

/** An open database: better-sqlite3's `Database`, or node:sqlite's `DatabaseSync`. */
export interface Connection {
  loadExtension(file: string, entryPoint?: string): unknown;
  prepare(sql: string): { get(...parameters: never[]): unknown };
  close(): unknown;
}

/** The class of better-sqlite3 or node:sqlite. */
export type DatabaseClass<C extends Connection = Connection> = new (file: string, options?: never) => C;

/** What `register` may be told. */
export interface RegisterOptions {
  /**
   * Make the VFS the default one: from then on, databases whose connections name no VFS are opened through it, too. The
   * default is true for better-sqlite3, whose SQLite knows no URIs that could name it, and false for node:sqlite.
   */
  makeDefault?: boolean;
}

/** Parameters of a database's URI: SQLite's (`mode`), and the VFS's (`kanban_busy_timeout`, in ms). */
export type Parameters = Record<string, string | number>;

/**
 * The path of the extension, for everything that loads it itself.
 *
 * @throws Error There is none for this system and processor.
 */
export function loadablePath(): string;

/**
 * Registers the VFS with the SQLite of a class, once in each process and thread; what is registered stays.
 *
 * @throws Error There is no extension for this machine, or that SQLite (older than 3.31) refuses it; or `makeDefault` is
 *   asked for with node:sqlite, which loads no other entry point.
 */
export function register(Database: DatabaseClass<any>, options?: RegisterOptions): void;

/**
 * The URI of a database that is opened through the VFS, `file:///board.db?vfs=kanban`, for node:sqlite and others whose
 * SQLite takes URIs. `file` may have any characters in it.
 *
 * @throws Error A parameter names another VFS.
 */
export function uri(file: string | URL, parameters?: Parameters): string;

/**
 * Opens a database through the VFS, with a busy timeout of 5000 ms unless the options say otherwise, which are those of the
 * class. Registers the VFS with the class first, if it is not yet.
 *
 * @throws Error As `register`, and as the class.
 */
export function open<C extends Connection, O extends object>(
  Database: new (file: any, options?: O) => C,
  file: string,
  options?: O,
): C;

/** What `PRAGMA kanban_status` says; the project's docs/configuration.md has the fields. `null` on another VFS. */
export function status(database: Connection): Record<string, unknown> | null;
