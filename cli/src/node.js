// Makes kanban the default VFS of the SQLites of a Node process: better-sqlite3, which has a copy of its own, and
// node:sqlite, which is part of Node. `kanban-vfs run` names it by NODE_OPTIONS, which children and worker threads
// inherit. https://nodejs.org/api/cli.html#-r---require-module
//
// It must not fail, whatever Node it is: the application would not start. So its syntax is old, and what fails is told.
'use strict';

(function () {
  if (process.env.KANBAN_VFS_DEFAULT !== '1') return;

  var path = require('path');
  // Where the libraries are: that of them which is preloaded says so.
  var preload = 'libkanban_vfs_preload.so';
  var preloaded = String(process.env.LD_PRELOAD).split(/[ :]/).filter(function (file) {
    return path.basename(file) === preload;
  })[0];
  var directory = preloaded ? path.dirname(preloaded) : __dirname;

  function tell(what, error) {
    var text = String((error && error.message) || error).replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, '?');
    try {
      require('fs').writeSync(2, 'kanban-vfs: process ' + process.pid + ' (node): ' + what +
        ' goes on with SQLite\'s own VFS: ' + text + '\n');
    } catch (ignored) {
      // Nobody listens.
    }
  }

  // A function of better-sqlite3's, as soon as somebody requires or imports it.
  function serve(Database) {
    try {
      var loader = new Database(':memory:');
      try {
        loader.loadExtension(path.join(directory, 'libkanban_vfs.so'), 'sqlite3_kanbanvfs_default_init');
      } finally {
        loader.close();
      }
    } catch (error) {
      tell('better-sqlite3', error);
    }
  }

  var Module = require('module');
  var load = Module._load;
  var served = [];
  if (typeof load === 'function') {
    Module._load = function (request) {
      var loaded = load.apply(this, arguments);
      if (/(^|[\\/])better-sqlite3([\\/]lib[\\/]index(\.js)?)?$/.test(request) &&
          typeof loaded === 'function' && loaded.prototype && served.indexOf(loaded) < 0) {
        served.push(loaded);
        serve(loaded);
      }
      return loaded;
    };
  }

  // node:sqlite is registered with at once, since an import of it comes by no function. It may be too new for Node to
  // load it without a warning; that is the application's to cause.
  if (typeof Module.isBuiltin === 'function' && Module.isBuiltin('node:sqlite')) {
    var warn = process.emitWarning;
    try {
      process.emitWarning = function () {};
      var DatabaseSync = require('node:sqlite').DatabaseSync;
      process.emitWarning = warn;
      var loader = new DatabaseSync(':memory:', { allowExtension: true });
      try {
        // It takes no entry point: SQLite derives one from this name.
        loader.loadExtension(path.join(directory, preload));
      } finally {
        loader.close();
      }
    } catch (error) {
      tell('node:sqlite', error);
    } finally {
      process.emitWarning = warn;
    }
  }
})();
