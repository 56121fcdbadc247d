<?php
$children = [];
for ($n = 0; $n < 4; $n++) {
    $child = pcntl_fork();
    if ($child != 0) {
        $children[] = $child;
        continue;
    }
    // PDO and SQLite3 in turn.
    $board = $n % 2 ? new PDO("sqlite:$argv[1]/board.db") : new SQLite3("$argv[1]/board.db");
    if ($n % 2 == 0) {
        $board->enableExceptions(true);
        $board->busyTimeout(60000);
    }
    $refused = 0;
    for ($turn = 0; $turn < 25; $turn++) {
        try {
            $board->exec("BEGIN");
            $sql = "SELECT n FROM total";
            $total = $n % 2 ? $board->query($sql)->fetchColumn() : $board->querySingle($sql);
            usleep(1000);
            $board->exec("UPDATE total SET n = " . ($total + 1));
            $board->exec("COMMIT");
        } catch (Exception $e) {
            if (!str_contains($e->getMessage(), "locked")) throw $e;
            $board->exec("ROLLBACK");
            $refused++;
        }
    }
    exit($refused);
}
$refused = 0;
foreach ($children as $child) {
    pcntl_waitpid($child, $status);
    $refused += pcntl_wexitstatus($status);
}
echo "$refused\n";
