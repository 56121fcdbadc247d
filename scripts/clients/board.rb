# Ruby: the gem sqlite3.
require 'sqlite3'

loader = SQLite3::Database.new(':memory:')
loader.enable_load_extension(true)
loader.load_extension(ENV.fetch('KANBAN_VFS'))

board = SQLite3::Database.new("file:#{ARGV[0]}?vfs=kanban")
board.busy_timeout = 5000
board.execute('CREATE TABLE IF NOT EXISTS tasks (who TEXT)')
10.times { board.transaction(:immediate) { board.execute('INSERT INTO tasks VALUES (?)', ['ruby']) } }

# Threads: each has a connection, and its busy handler lets the other go on.
threads = Array.new(2) do
  Thread.new do
    mine = SQLite3::Database.new("file:#{ARGV[0]}?vfs=kanban")
    mine.busy_handler { |tries| sleep 0.001; tries < 5000 }
    5.times do
      mine.transaction(:immediate) do
        sleep 0.002
        mine.execute('INSERT INTO tasks VALUES (?)', ['ruby'])
      end
    end
  end
end
threads.each(&:join)
board.execute('PRAGMA kanban_status')[0][0].include?('"vfs":"kanban/') or abort 'past the VFS'
