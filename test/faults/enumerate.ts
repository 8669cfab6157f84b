/** Kills the daemon at every point of a run, one run for each point. */

import type { Case } from './cases.ts';
import { noExcuse, tell, violationsOf } from './laws.ts';
import { type Played, play } from './play.ts';
import { openShop, type Shop } from './shop.ts';
import { writeStory } from './stories.ts';

export type Verdict = {
  /** `nowhere`: that was the run that nobody disturbed. */
  readonly point: string;
  /** The daemon was killed there; else the run never came by, each time that it was tried. */
  readonly isReached: boolean;
  readonly violations: readonly string[];
};

export type Enumeration = {
  readonly points: readonly string[];
  readonly verdicts: readonly Verdict[];
};

export type Plan = {
  readonly socketPath: string;
  /** How many stacks, and so runs, at once. */
  readonly stacks: number;
  readonly case: Case;
  /** Of all points, those to be tried; default all. */
  readonly choose?: (points: readonly string[]) => readonly string[];
  /** The first law that is broken is enough. */
  readonly untilBroken?: true;
  readonly say: (line: string) => void;
};

/** A point that no run comes by. */
const NOWHERE = 'nowhere';

/** How often a point is tried that depends on how often something had to be asked. */
const TRIES = 4;

/** Plays the script once undisturbed and takes down its points, then once for each point. */
export async function enumerate(plan: Plan): Promise<Enumeration> {
  const { socketPath, say, untilBroken = false } = plan;
  const { life = 0, since, among = /./ } = plan.case;
  const open = (): Promise<Shop> => openShop(socketPath, plan.case.services, undefined, plan.case.hooks);
  await using opened = new AsyncDisposableStack();
  const shops: Shop[] = [opened.use(await open())];
  const undisturbed = await killAt(shops[0] as Shop, NOWHERE, plan);
  if (undisturbed.verdict.violations.length > 0) return { points: [], verdicts: [undisturbed.verdict] };
  const row = undisturbed.played.lives[life]?.points ?? [];
  const first = since === undefined ? 0 : row.indexOf(since);
  if (first === -1) throw new Error(`it never came by ${since}`);
  const points = [...(plan.choose ?? ((all) => all))(row.slice(first).filter((point) => among.test(point)))];
  say(`${row.length} points, ${points.length} to be tried`);

  while (shops.length < plan.stacks && shops.length < points.length) shops.push(opened.use(await open()));
  const known = new Set(row);
  const queue = [...points];
  const verdicts: Verdict[] = [];
  const workers = shops.map(async (first) => {
    let shop = first;
    for (let point = queue.shift(); point !== undefined; point = queue.shift()) {
      const { verdict, played } = await killAt(shop, point, plan);
      verdicts.push(verdict);
      if (verdict.violations.length > 0) {
        say(`${point}: ${verdict.violations.join('; ')}`);
        if (untilBroken) queue.splice(0);
        else shop = opened.use(await open()); // nobody knows in what state the other was left
      }
      // What the reference did not come by, and is no mere question, is tried as well.
      const others = plan.choose === undefined && untilBroken === false ? (played.lives[life]?.points ?? []) : [];
      const strangers = others.filter((one) => !known.has(one) && !isQuestion(one) && among.test(one));
      for (const stranger of strangers) known.add(stranger);
      queue.push(...strangers);
      points.push(...strangers);
      if (verdicts.length % 25 === 0) say(`${verdicts.length} of ${points.length}`);
    }
  });
  // All of them, before what they stand on is taken away.
  for (const ended of await Promise.allSettled(workers)) if (ended.status === 'rejected') throw ended.reason;
  return { points, verdicts };
}

/** How often something is asked depends on how long other things take: on a busy machine not all runs are alike. */
export function isQuestion(point: string): boolean {
  return / engine GET /.test(point);
}

/** A runtime that could not pause, on a busy machine: the backup is refused (74) and undone, and the point not come by. */
const UNFROZEN = /pause failed: unable to freeze/;

type Tried = { readonly verdict: Verdict; readonly played: Played };

async function killAt(shop: Shop, point: string, plan: Plan): Promise<Tried> {
  const { script, life = 0, excuse = noExcuse } = plan.case;
  const kills = [...(script.kills ?? []).slice(0, life), point];
  for (let tried = 1; ; tried += 1) {
    const played = await play(shop, { ...script, kills });
    const isReached = played.lives[life]?.points.at(-1) === point && played.lives.length > life + 1;
    const excused = excuse();
    if (UNFROZEN.test(played.clientSaid) && excused.codes !== 'any') excused.codes.add(74);
    const violations = violationsOf(shop.services, played, excused);
    if (violations.length > 0) writeStory(point, violations, tell(played));
    if (isReached || violations.length > 0 || tried === TRIES || point === NOWHERE)
      return { verdict: { point, isReached, violations }, played };
  }
}
