// Go: mattn/go-sqlite3. With a second argument it knows nothing of the VFS, as an application that `run` starts.
package main

import (
	"database/sql"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/mattn/go-sqlite3"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Twenty goroutines at once, each with a connection of the pool. A transaction that has read something old adds nothing.
func burst(board *sql.DB, who string) {
	defer board.Close()
	var all sync.WaitGroup
	for n := 0; n < 20; n++ {
		all.Add(1)
		go func() {
			defer all.Done()
			task, err := board.Begin()
			check(err)
			var count int
			check(task.QueryRow("SELECT count(*) FROM tasks WHERE who = ?", who).Scan(&count))
			_, err = task.Exec("INSERT INTO tasks SELECT ?1 WHERE ?2 = (SELECT count(*) FROM tasks WHERE who = ?1)", who, count)
			check(err)
			check(task.Commit())
		}()
	}
	all.Wait()
	var status string
	check(board.QueryRow("PRAGMA kanban_status").Scan(&status))
	if !strings.Contains(status, `"vfs":"kanban/`) {
		log.Fatal("past the VFS: " + status)
	}
}

// Whether another process gets the write lock while a goroutine has it, and another goroutine has read the file and closed it. On
// the stock VFS that drops all locks of the process.
func lockIsLost(file, vfs string) bool {
	board, err := sql.Open("sqlite3", "file:"+file+"?vfs="+vfs+"&_txlock=immediate&_journal_mode=delete")
	check(err)
	defer board.Close()
	_, err = board.Exec("CREATE TABLE tasks (who TEXT)")
	check(err)
	task, err := board.Begin()
	check(err)
	read := make(chan error)
	go func() {
		_, err := os.ReadFile(file)
		read <- err
	}()
	check(<-read)
	said, err := exec.Command("sqlite3", file, "BEGIN IMMEDIATE").CombinedOutput()
	if err != nil && !strings.Contains(string(said), "database is locked") {
		log.Fatal(err, string(said))
	}
	check(task.Rollback())
	return err == nil
}

func main() {
	if len(os.Args) > 2 {
		board, err := sql.Open("sqlite3", os.Args[1]+"?_txlock=immediate")
		check(err)
		burst(board, "go, run")
		return
	}
	sql.Register("sqlite3_kanban", &sqlite3.SQLiteDriver{Extensions: []string{os.Getenv("KANBAN_VFS")}})
	loader, err := sql.Open("sqlite3_kanban", ":memory:")
	check(err)
	check(loader.Ping()) // connects, and with that registers the VFS
	check(loader.Close())

	board, err := sql.Open("sqlite3", "file:"+os.Args[1]+"?vfs=kanban&_txlock=immediate&_busy_timeout=5000")
	check(err)
	burst(board, "go")
	if !lockIsLost("stock.db", "unix") {
		log.Fatal("nothing is lost on the stock VFS: the test shows nothing")
	}
	if lockIsLost("ours.db", "kanban") {
		log.Fatal("the lock is lost")
	}
	version, _, _ := sqlite3.Version()
	fmt.Println("Go: SQLite", version)
}
