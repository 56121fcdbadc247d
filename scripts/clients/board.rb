# Ruby: the gem sqlite3.
require 'sqlite3'

loader = SQLite3::Database.new(':memory:')
loader.enable_load_extension(true)
loader.load_extension(ENV.fetch('KANBAN_VFS'))

board = SQLite3::Database.new("file:#{ARGV[0]}?vfs=kanban")
board.busy_timeout = 5000
board.execute('CREATE TABLE IF NOT EXISTS tasks (who TEXT)')
20.times { board.transaction(:immediate) { board.execute('INSERT INTO tasks VALUES (?)', ['ruby']) } }
board.execute('PRAGMA kanban_status')[0][0].include?('"vfs":"kanban/') or abort 'past the VFS'
