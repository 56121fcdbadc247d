require 'sqlite3'
def work(name, place)
  path = "#{place}/#{name}.db"
  board = SQLite3::Database.new(path)
  board.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE tasks (n); BEGIN IMMEDIATE; INSERT INTO tasks VALUES (1)")
  File.open("#{path}-shm", "rb") { }
  puts "#{name} #{`$STRANGER #{path} 'INSERT INTO tasks VALUES (2)' 2>&1`.empty? ? "broke in" : "refused"}"
  $stdout.flush
  board.execute("COMMIT")
end
work(ARGV[1] || "first", ARGV[0])
unless ARGV[1]
  Process.wait(fork { work("fork", ARGV[0]) })
  system("ruby", __FILE__, ARGV[0], "program", exception: true)
end
