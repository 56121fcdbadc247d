use DBI;
use Time::HiRes 'usleep';
my @children;
for (1 .. 4) {
    my $child = fork();
    if ($child) { push @children, $child; next; }
    my $board = DBI->connect("dbi:SQLite:dbname=$ARGV[0]/board.db", "", "",
        { RaiseError => 1, PrintError => 0, sqlite_use_immediate_transaction => 0 });
    my $refused = 0;
    for (1 .. 25) {
        eval {
            $board->begin_work;
            my ($total) = $board->selectrow_array("SELECT n FROM total");
            usleep(1000);
            $board->do("UPDATE total SET n = ?", undef, $total + 1);
            $board->commit;
            1;
        } or do {
            die $@ unless $@ =~ /locked/;
            $board->rollback;
            $refused++;
        };
    }
    exit($refused);
}
my $refused = 0;
for (@children) { waitpid($_, 0); $refused += $? >> 8; }
print "$refused\n";
