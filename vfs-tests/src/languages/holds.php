<?php
function work($name, $place) {
    $path = "$place/$name.db";
    $sql = "PRAGMA journal_mode=wal; CREATE TABLE tasks (n); BEGIN IMMEDIATE; INSERT INTO tasks VALUES (1)";
    if ($name == "fork") {
        $board = new PDO("sqlite:$path");
    } else {
        $board = new SQLite3($path);
    }
    $board->exec($sql);
    fclose(fopen("$path-shm", "rb"));
    $said = shell_exec("\$STRANGER $path 'INSERT INTO tasks VALUES (2)' 2>&1");
    echo "$name ", $said === null ? "broke in" : "refused", "\n";
    $board->exec("COMMIT");
}
work($argv[2] ?? "first", $argv[1]);
if (!isset($argv[2])) {
    $child = pcntl_fork();
    if ($child == 0) {
        work("fork", $argv[1]);
        exit(0);
    }
    pcntl_waitpid($child, $status);
    passthru("php " . __FILE__ . " $argv[1] program");
}
