# Rails: ActiveRecord. With a second argument it knows nothing of the VFS, as an application that `run` starts.
require 'active_record'
require 'sqlite3'

file, run = ARGV
who = run ? 'active_record, run' : 'active_record'
database = file
unless run
  # As in config/initializers/kanban.rb
  loader = SQLite3::Database.new(':memory:')
  loader.enable_load_extension(true)
  loader.load_extension(ENV.fetch('KANBAN_VFS'))
  loader.close

  # As in config/database.yml
  database = "file:#{file}?vfs=kanban&kanban_begin=immediate"
end
ActiveRecord::Base.establish_connection(adapter: 'sqlite3', database: database, timeout: 5000)
class Task < ActiveRecord::Base; end

# Workers as a server forks them once the application is loaded. Each transaction reads before it writes.
workers = Array.new(4) do
  fork do
    5.times { Task.transaction { Task.count && Task.create!(who: who) } }
    status = ActiveRecord::Base.connection.select_value('PRAGMA kanban_status').to_s
    status.include?('"vfs":"kanban/') && status.include?('"begin":"immediate"') or abort "not as asked: #{status}"
  end
end
workers.each { |worker| Process.wait2(worker)[1].success? or abort 'a worker failed' }
puts "ActiveRecord #{ActiveRecord::VERSION::STRING}" unless run
