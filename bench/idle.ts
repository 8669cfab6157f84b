/** What it costs while nothing happens. */
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import type { Extent, Row } from './measure.ts';
import { askBareServer, openBareServer, openSidecar, type Stage } from './stage.ts';

const SETTLE_MS = 5_000;
const IDLE_MS = 30_000;
const KB_PER_MB = 1024;

/** Memory and processor time of a sidecar with an engine, after its first run, against the bare server's. */
export async function measureIdle(stage: Stage, { isQuick }: Extent): Promise<readonly Row[]> {
  await using sidecar = await openSidecar(stage, { project: 'nothing-of-that-name' });
  await using bare = await openBareServer(stage, '/bin/true');
  await sidecar.signal('pre');
  await sidecar.signal('post');
  await askBareServer(bare);
  const lengthMs = isQuick ? 500 : IDLE_MS;
  await pause(isQuick ? 0 : SETTLE_MS);
  const before = [await ticksOf(sidecar.pid), await ticksOf(bare.pid)] as const;
  await pause(lengthMs);
  const ticks = { ours: [(await ticksOf(sidecar.pid)) - before[0]], theirs: [(await ticksOf(bare.pid)) - before[1]] };
  const memory = { ours: [await residentOf(sidecar.pid)], theirs: [await residentOf(bare.pid)] };
  const against = 'bare node:http server';
  return [
    { goal: { id: 'G8', most: 1.4 }, work: 'idle: resident memory', against, unit: 'MB', ...memory },
    { work: `idle: processor, ${lengthMs / 1000} s`, against, unit: 'ticks', ...ticks },
  ];
}

/** Processor time so far, of the process and the kernel on its behalf, in hundredths of a second. */
async function ticksOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

async function residentOf(pid: number): Promise<number> {
  const [, kb] = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kb) / KB_PER_MB;
}
