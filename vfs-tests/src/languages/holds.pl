use DBI;
$| = 1;
sub work {
    my ($name, $place) = @_;
    my $path = "$place/$name.db";
    my $board = DBI->connect("dbi:SQLite:dbname=$path", "", "", { RaiseError => 1 });
    $board->do($_) for "PRAGMA journal_mode=wal", "CREATE TABLE tasks (n)", "BEGIN IMMEDIATE", "INSERT INTO tasks VALUES (1)";
    open(my $file, "<", "$path-shm") or die;
    close($file);
    my $said = `\$STRANGER $path 'INSERT INTO tasks VALUES (2)' 2>&1`;
    print "$name ", $said eq "" ? "broke in" : "refused", "\n";
    $board->do("COMMIT");
}
work($ARGV[1] // "first", $ARGV[0]);
unless ($ARGV[1]) {
    my $child = fork();
    if ($child == 0) { work("fork", $ARGV[0]); exit; }
    waitpid($child, 0);
    system("perl", $0, $ARGV[0], "program") == 0 or die;
}
