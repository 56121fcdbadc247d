<?php
// PHP: PDO. The class SQLite3 loads the extension, from sqlite3.extension_dir; it knows no URIs itself.
$loader = new SQLite3(':memory:');
$loader->loadExtension('libkanban_vfs.so');

$board = new PDO("sqlite:file:$argv[1]?vfs=kanban", null, null, [PDO::ATTR_TIMEOUT => 5]);
$board->exec('CREATE TABLE IF NOT EXISTS tasks (who TEXT)');
for ($n = 0; $n < 20; $n++) {
    // Not beginTransaction(), which begins a deferred one.
    $board->exec('BEGIN IMMEDIATE');
    $board->exec("INSERT INTO tasks VALUES ('php')");
    $board->exec('COMMIT');
}
str_contains($board->query('PRAGMA kanban_status')->fetchColumn(), '"vfs":"kanban/') or exit(1);
