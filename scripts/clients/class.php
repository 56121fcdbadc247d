<?php
// PHP: the class SQLite3, started by `kanban-vfs run`.
$board = new SQLite3($argv[1]);
$board->busyTimeout(5000);
$board->exec('CREATE TABLE IF NOT EXISTS tasks (who TEXT)');
for ($n = 0; $n < 20; $n++) {
    $board->exec('BEGIN IMMEDIATE');
    $board->exec("INSERT INTO tasks VALUES ('php class')");
    $board->exec('COMMIT');
}
str_contains((string) $board->querySingle('PRAGMA kanban_status'), '"vfs":"kanban/') or exit(1);
