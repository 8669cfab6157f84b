import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { type Claimed, refuseBusy } from './core/claims.ts';
import { OperationalError } from './core/errors.ts';
import type { Hold } from './core/hold.ts';
import type { Journal } from './core/ports.ts';
import type { HoldRecord, RunRecord, StepRecord } from './core/record.ts';
import type { Request } from './core/request.ts';
import type { Answer, Outcome } from './core/result.ts';

/** The format of the file. A newer one is refused; an older one is migrated, here, when there is one. */
const FORMAT = 1;
const OPEN = "phase NOT IN ('closed', 'kept')";
const PENDING = "status <> 'released'";
/** Answers and closed runs that stay to be read. */
const KEPT_ANSWERS = 10_000;
const KEPT_RUNS = 1_000;
const ANSWERS_BETWEEN = 500;

const SCHEMA = `
  CREATE TABLE requests (id TEXT PRIMARY KEY, doc TEXT NOT NULL, lease TEXT NOT NULL, answer TEXT) STRICT;
  CREATE INDEX unanswered ON requests (id) WHERE answer IS NULL;
  CREATE TABLE runs (id TEXT PRIMARY KEY, job TEXT NOT NULL, phase TEXT NOT NULL, doc TEXT NOT NULL) STRICT;
  CREATE INDEX live ON runs (phase) WHERE phase <> 'closed';
  CREATE TABLE steps (
    run TEXT NOT NULL, id TEXT NOT NULL, position INTEGER NOT NULL, doc TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'planned', outcome TEXT, PRIMARY KEY (run, id)) STRICT;
  CREATE TABLE holds (id INTEGER PRIMARY KEY, key TEXT NOT NULL, status TEXT NOT NULL, doc TEXT NOT NULL) STRICT;
  CREATE UNIQUE INDEX pending ON holds (key) WHERE status <> 'released';
  CREATE TABLE sharers (hold INTEGER NOT NULL, run TEXT NOT NULL, PRIMARY KEY (run, hold)) STRICT;
  CREATE TABLE claims (run TEXT NOT NULL, key TEXT NOT NULL, name TEXT NOT NULL, use TEXT NOT NULL) STRICT;
  CREATE INDEX claimed ON claims (key);
`;

/**
 * Opens, or makes, `journal.db` in `stateDir`. SQLite in WAL mode, every write synced to disk, locked for this process alone.
 * @throws OperationalError `configuration`: another sidehook has it, a newer version wrote it, or it is no journal
 */
export function openJournal(stateDir: string): Journal & Disposable {
  const path = join(stateDir, 'journal.db');
  const database = openDatabase(stateDir, path);
  const { get, all, write } = makeStatements(database, path);

  let answers = 0;
  let depth = 0;
  const atomically = <T>(work: () => T): T => {
    if (depth > 0) return work();
    write('BEGIN IMMEDIATE');
    depth += 1;
    try {
      const result = work();
      write('COMMIT');
      return result;
    } catch (error) {
      if (database.isTransaction) database.exec('ROLLBACK');
      throw error;
    } finally {
      depth -= 1;
    }
  };
  const readRun = (id: string): RunRecord | undefined => docOf<RunRecord>(get('SELECT doc FROM runs WHERE id = ?', id));
  const readRuns = (where: string): RunRecord[] =>
    all(`SELECT doc FROM runs WHERE ${where} ORDER BY rowid DESC`).map((row) => JSON.parse(String(row.doc)));
  const holdsWhere = (where: string, ...values: SQLInputValue[]): HoldRecord[] =>
    all(`SELECT id, doc FROM holds WHERE ${where} ORDER BY id`, ...values).map((row) => ({
      ...(JSON.parse(String(row.doc)) as Hold),
      runs: all('SELECT run FROM sharers WHERE hold = ? ORDER BY rowid', Number(row.id)).map(({ run }) => String(run)),
    }));
  const claimsOfOthers = (): Claimed[] =>
    all('SELECT c.run, c.key, c.name, c.use, r.doc FROM claims c JOIN runs r ON r.id = c.run').map((row) => {
      const { job, operation, phase } = JSON.parse(String(row.doc)) as RunRecord;
      const { run, key, name, use } = row as Record<string, string>;
      return { runId: run, key, name, use, job, operation, kept: phase === 'kept' } as Claimed;
    });
  const pendingId = (key: string): number => {
    const row = get("SELECT id FROM holds WHERE key = ? AND status <> 'released'", key);
    if (row === undefined) throw new Error(`no pending hold of ${key}`);
    return Number(row.id);
  };

  return {
    atomically,
    takeRequest(request, leaseRef) {
      const values = [request.id, JSON.stringify(request), leaseRef];
      write('INSERT INTO requests (id, doc, lease) VALUES (?, ?, ?) ON CONFLICT DO NOTHING', ...values);
    },
    answerOf: (id) => docOf<Answer>(get('SELECT answer AS doc FROM requests WHERE id = ?', id)),
    unanswered: () =>
      all('SELECT doc, lease FROM requests WHERE answer IS NULL ORDER BY rowid').map((row) => ({
        request: JSON.parse(String(row.doc)) as Request,
        leaseRef: String(row.lease),
      })),
    answered({ id }, leaseRef, answer) {
      // What was asked is of no use any more, and a client chooses how large it is.
      const row = "INSERT INTO requests (id, doc, lease, answer) VALUES (?, '', ?, ?)";
      const values = [id, leaseRef, JSON.stringify(answer)];
      write(`${row} ON CONFLICT (id) DO UPDATE SET answer = excluded.answer, doc = excluded.doc`, ...values);
      answers += 1;
      if (answers % ANSWERS_BETWEEN === 0) forgetAnswers(write); // a client may ask for years, and open no run
    },
    openRun(run, steps, claims) {
      atomically(() => {
        refuseBusy(run, claims, readRuns(OPEN), claimsOfOthers(), holdsWhere(PENDING));
        write(
          'INSERT INTO runs (id, job, phase, doc) VALUES (?, ?, ?, ?)',
          run.id,
          run.job,
          run.phase,
          JSON.stringify(run),
        );
        for (const [position, step] of steps.entries()) {
          const values = [run.id, step.id, position, JSON.stringify(step)];
          write('INSERT INTO steps (run, id, position, doc) VALUES (?, ?, ?, ?)', ...values);
        }
        for (const { key, name, use } of claims) {
          write('INSERT INTO claims (run, key, name, use) VALUES (?, ?, ?, ?)', run.id, key, name, use);
        }
      });
    },
    run: readRun,
    runs: (which) => readRuns(which === 'live' ? "phase <> 'closed'" : 'TRUE'),
    changeRun(id, change) {
      atomically(() => {
        const run = { ...readRun(id), ...change } as RunRecord;
        write('UPDATE runs SET phase = ?, doc = ? WHERE id = ?', run.phase, JSON.stringify(run), id);
        if (run.phase !== 'closed') return;
        write('DELETE FROM claims WHERE run = ?', id);
        forgetOld(write);
      });
    },
    steps: (runId) =>
      all('SELECT doc, status, outcome FROM steps WHERE run = ? ORDER BY position', runId).map((row) => ({
        ...(JSON.parse(String(row.doc)) as StepRecord),
        status: row.status as StepRecord['status'],
        ...(row.outcome === null ? {} : { outcome: JSON.parse(String(row.outcome)) as Outcome }),
      })),
    stepStarted(runId, stepId) {
      write("UPDATE steps SET status = 'started' WHERE run = ? AND id = ?", runId, stepId);
    },
    stepEnded(runId, stepId, outcome) {
      const values = [JSON.stringify(outcome), runId, stepId];
      write("UPDATE steps SET status = 'ended', outcome = ? WHERE run = ? AND id = ?", ...values);
    },
    holds: () => holdsWhere(PENDING),
    holdsOf: (runId) => holdsWhere('id IN (SELECT hold FROM sharers WHERE run = ?)', runId),
    addHold(hold, runId) {
      atomically(() => {
        write('INSERT INTO holds (key, status, doc) VALUES (?, ?, ?)', hold.key, hold.status, JSON.stringify(hold));
        write('INSERT INTO sharers (hold, run) VALUES (?, ?)', pendingId(hold.key), runId);
      });
    },
    joinHold(key, runId) {
      write('INSERT INTO sharers (hold, run) VALUES (?, ?) ON CONFLICT DO NOTHING', pendingId(key), runId);
    },
    leaveHold(key, runId) {
      write('DELETE FROM sharers WHERE hold = ? AND run = ?', pendingId(key), runId);
    },
    changeHold(key, change) {
      const id = pendingId(key);
      const hold = { ...docOf<Hold>(get('SELECT doc FROM holds WHERE id = ?', id)), ...change } as Hold;
      write('UPDATE holds SET status = ?, doc = ? WHERE id = ?', hold.status, JSON.stringify(hold), id);
    },
    [Symbol.dispose]: () => database.close(),
  };
}

function openDatabase(stateDir: string, path: string): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    database = new DatabaseSync(path, { timeout: 0 });
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
    database.exec('BEGIN EXCLUSIVE'); // takes the lock now, and keeps it
    const format = Number(database.prepare('PRAGMA user_version').get()?.user_version);
    if (format > FORMAT) throw new Error(`a newer sidehook wrote it (format ${format}, this one knows ${FORMAT})`);
    if (format === 0) database.exec(`${SCHEMA}; PRAGMA user_version = ${FORMAT}`);
    database.exec('COMMIT');
    return database;
  } catch (cause) {
    if (database?.isOpen) database.close();
    const isLocked = codeOf(cause) === 5;
    const why = isLocked ? 'another sidehook uses this state directory' : messageOf(cause);
    throw new OperationalError('configuration', `open journal ${path}: ${why}`, { cause });
  }
}

type Row = Record<string, unknown>;

function makeStatements(database: DatabaseSync, path: string) {
  const prepared = new Map<string, StatementSync>();
  const statement = (sql: string): StatementSync => {
    const known = prepared.get(sql) ?? database.prepare(sql);
    prepared.set(sql, known);
    return known;
  };
  return {
    get: (sql: string, ...values: SQLInputValue[]): Row | undefined => statement(sql).get(...values),
    all: (sql: string, ...values: SQLInputValue[]): Row[] => statement(sql).all(...values),
    write(sql: string, ...values: SQLInputValue[]): void {
      try {
        statement(sql).run(...values);
      } catch (cause) {
        if (codeOf(cause) === undefined) throw cause;
        throw new OperationalError('internal', `write journal ${path}: ${messageOf(cause)}`, { cause });
      }
    },
  };
}

function forgetOld(write: (sql: string, ...values: SQLInputValue[]) => void): void {
  const oldest = `SELECT id FROM runs WHERE phase = 'closed' AND id NOT IN (SELECT run FROM sharers s JOIN holds h
    ON h.id = s.hold WHERE h.status <> 'released') ORDER BY rowid DESC LIMIT -1 OFFSET ${KEPT_RUNS}`;
  write(`DELETE FROM steps WHERE run IN (${oldest})`);
  write(`DELETE FROM sharers WHERE run IN (${oldest})`);
  write("DELETE FROM holds WHERE status = 'released' AND id NOT IN (SELECT hold FROM sharers)");
  write(`DELETE FROM runs WHERE id IN (${oldest})`);
  forgetAnswers(write);
}

function forgetAnswers(write: (sql: string, ...values: SQLInputValue[]) => void): void {
  write(`DELETE FROM requests WHERE answer IS NOT NULL AND id IN (
    SELECT id FROM requests ORDER BY rowid DESC LIMIT -1 OFFSET ${KEPT_ANSWERS})`);
}

function docOf<T>(row: Row | undefined): T | undefined {
  const doc = row?.doc;
  return typeof doc === 'string' ? (JSON.parse(doc) as T) : undefined;
}

/** SQLite's own result code, where it was SQLite that refused. */
function codeOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errcode' in error)) return undefined;
  return Number(error.errcode) & 0xff;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
