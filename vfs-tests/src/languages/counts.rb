require 'sqlite3'
path = "#{ARGV[0]}/board.db"
children = (1..4).map do
  fork do
    board = SQLite3::Database.new(path)
    refused = 0
    25.times do
      begin
        board.transaction do
          n = board.get_first_value("SELECT n FROM total")
          sleep 0.001
          board.execute("UPDATE total SET n = ?", n + 1)
        end
      rescue SQLite3::BusyException
        refused += 1
      end
    end
    exit!(refused)
  end
end
puts children.sum { |child| Process.wait2(child)[1].exitstatus }
