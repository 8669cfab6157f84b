/** The demo's application: moves money between the accounts of a SQLite database without a pause, until it is ended. */
import { DatabaseSync } from 'node:sqlite';

const [path = 'shop.db'] = process.argv.slice(2);
const ACCOUNTS = 100;

const database = new DatabaseSync(path);
database.exec('pragma journal_mode = wal; create table account (id integer primary key, money integer)');
const open = database.prepare('insert into account (money) values (1000)');
for (let count = 0; count < ACCOUNTS; count += 1) open.run();
console.log('open');

const add = database.prepare('update account set money = money + ? where id = ?');
setInterval(() => {
  const anyone = () => 1 + Math.floor(Math.random() * ACCOUNTS);
  database.exec('begin');
  add.run(-7, anyone());
  add.run(7, anyone());
  database.exec('commit');
}, 1);
