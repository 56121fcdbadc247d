require 'sqlite3'
path = "#{ARGV[0]}/raises.db"
# Another process, which writes while the first one waits.
commands, told = IO.pipe
heard, replies = IO.pipe
other = fork do
  told.close
  heard.close
  board = SQLite3::Database.new(path)
  board.busy_timeout(60_000)
  while (sql = commands.gets)
    board.execute(sql.chomp)
    replies.puts
  end
  board.close
  exit!(0)
end
writes = lambda do |*statements|
  statements.each do |sql|
    told.puts(sql)
    heard.gets
  end
end
writes.call('PRAGMA journal_mode=wal', 'CREATE TABLE t (x)', 'INSERT INTO t VALUES (1)')
# A third process waits in the queue whenever the second one has the lock. So the VFS asks the handler in SQLite's place.
# It ends with the first one, so that it does not live on if that fails.
first = Process.pid
queued = fork do
  told.close
  heard.close
  board = SQLite3::Database.new(path)
  board.busy_timeout(60_000)
  while Process.ppid == first
    board.execute('BEGIN IMMEDIATE')
    board.execute('ROLLBACK')
  end
  exit!(0)
end
%w[immediate deferred].each do |kind|
  board = SQLite3::Database.new(path)
  rows = -> { board.get_first_value('SELECT count(*) FROM t') }
  seen = rows.call
  writes.call('BEGIN IMMEDIATE')
  commits = -> { writes.call("INSERT INTO t VALUES ('#{kind}')", 'COMMIT', 'BEGIN IMMEDIATE') }
  is_first = kind == 'immediate'
  board.busy_handler do
    raise 'it takes too long' unless is_first
    is_first = false
    commits.call
    sleep 0.1
    true
  end
  begin
    if kind == 'immediate'
      board.execute('BEGIN IMMEDIATE')
    else
      commits.call
      board.execute('BEGIN')
      rows.call
      board.execute('INSERT INTO t VALUES (0)')
    end
    puts "#{kind}: it has begun"
  rescue RuntimeError, SQLite3::BusyException
    puts "#{kind}: it has given up"
  end
  if kind == 'immediate'
    Process.kill('KILL', queued)
    Process.wait(queued)
  end
  board.execute('ROLLBACK') if board.transaction_active?
  writes.call('COMMIT')
  board.busy_timeout(0)
  puts "#{rows.call - seen} more"
  200.times { |n| board.execute("INSERT INTO t VALUES ('#{n} of this one')") }
  board.close
end
told.close
Process.wait(other)
last = SQLite3::Database.new(path)
puts last.get_first_value('SELECT count(*) FROM t'), last.get_first_value('PRAGMA integrity_check')
