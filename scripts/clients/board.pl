# Perl: DBD::SQLite.
use strict;
use warnings;
use DBI;

my $loader = DBI->connect('dbi:SQLite:dbname=:memory:', '', '', { RaiseError => 1 });
$loader->sqlite_enable_load_extension(1);
$loader->sqlite_load_extension($ENV{KANBAN_VFS});

# Transactions begin with BEGIN IMMEDIATE, which is its default.
my $board = DBI->connect("dbi:SQLite:uri=file:$ARGV[0]?vfs=kanban", '', '',
    { RaiseError => 1, sqlite_use_immediate_transaction => 1 });
$board->do('CREATE TABLE IF NOT EXISTS tasks (who TEXT)');
for (1 .. 20) {
    $board->begin_work;
    $board->do('INSERT INTO tasks VALUES (?)', undef, 'perl');
    $board->commit;
}
$board->selectrow_array('PRAGMA kanban_status') =~ /"vfs":"kanban\// or die 'past the VFS';
