/**
 * The points that a daemon comes by, each with its number, in one row: `after engine POST /containers/db/stop #1`.
 * FAULTS_TRACE: the file that they are written to, one a line. FAULTS_KILL: the point at which the process ends itself
 * by SIGKILL. FAULTS_NAMES: JSON, what to call which container, since ids differ from run to run.
 */
import { openSync, writeSync } from 'node:fs';

const { FAULTS_TRACE = '/dev/null', FAULTS_KILL, FAULTS_NAMES = '{}' } = process.env;
const names = Object.entries(JSON.parse(FAULTS_NAMES) as Record<string, string>);
const trace = openSync(FAULTS_TRACE, 'a');
const seen = new Map<string, number>();

/** Notes that the process is here, and ends it if this is where it is to die. */
export function passBy(what: string): void {
  const count = (seen.get(what) ?? 0) + 1;
  seen.set(what, count);
  const point = `${what} #${count}`;
  writeSync(trace, `${point}\n`);
  if (point === FAULTS_KILL) process.kill(process.pid, 'SIGKILL');
}

/** Does it between two points. A deed that fails has an end, too. */
export async function between<Value>(what: string, deed: () => Promise<Value>): Promise<Value> {
  passBy(`before ${what}`);
  try {
    return await deed();
  } finally {
    passBy(`after ${what}`);
  }
}

/** Ids that nobody gave a name to, such as those of execs, are numbered as they come. */
const numbered = new Map<string, string>();

/** Puts names in the place of ids, and of what has something random in it. */
export function tellApart(text: string): string {
  const named = names.reduce((told, [id, name]) => told.replaceAll(id, name), text);
  return named.replaceAll(/(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])/g, (id) => {
    const name = numbered.get(id) ?? `ID${numbered.size + 1}`;
    numbered.set(id, name);
    return name;
  });
}
