/** Kills the daemon at every point of a run, one run for each point. */
import { tell, violationsOf } from './laws.ts';
import { type Played, play, type Script } from './play.ts';
import { openShop, type Service, type Shop } from './shop.ts';
import { writeStory } from './stories.ts';

export type Verdict = {
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
  readonly script: Script;
  /** In which life of the daemon the points are; those before it end where `script.kills` says. */
  readonly life?: number;
  readonly services?: readonly Service[];
  /** Of all points, those to be tried; default all. */
  readonly choose?: (points: readonly string[]) => readonly string[];
  readonly say: (line: string) => void;
};

/** How often a point is tried that depends on how often something had to be asked. */
const TRIES = 4;

/** Plays the script once undisturbed and takes down its points, then once for each point. */
export async function enumerate(plan: Plan): Promise<Enumeration> {
  const { socketPath, script, life = 0, services, say } = plan;
  await using opened = new AsyncDisposableStack();
  const shops: Shop[] = [];
  for (let at = 0; at < plan.stacks; at += 1) shops.push(opened.use(await openShop(socketPath, services)));

  const row = (await playUndisturbed(shops[0], script)).lives[life]?.points ?? [];
  const points = [...(plan.choose ?? ((all) => all))(row)];
  say(`${row.length} points, ${points.length} to be tried`);

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
        shop = opened.use(await openShop(socketPath, services)); // nobody knows in what state the other was left
      }
      // What the reference did not come by, and is no mere question, is tried as well.
      const others = plan.choose === undefined ? (played.lives[life]?.points ?? []) : [];
      const strangers = others.filter((one) => !known.has(one) && !isQuestion(one));
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

async function playUndisturbed(shop: Shop | undefined, script: Script): Promise<Played> {
  if (shop === undefined) throw new Error('expected one stack at least');
  const played = await play(shop, script);
  const violations = violationsOf(shop.services, played);
  if (violations.length > 0) writeStory('undisturbed', violations, tell(played));
  if (violations.length > 0) throw new Error(`undisturbed: ${violations.join('; ')}`);
  return played;
}

/** How often something is asked depends on how long other things take: on a busy machine not all runs are alike. */
export function isQuestion(point: string): boolean {
  return / engine GET /.test(point);
}

type Tried = { readonly verdict: Verdict; readonly played: Played };

async function killAt(shop: Shop, point: string, { script, life = 0 }: Plan): Promise<Tried> {
  const kills = [...(script.kills ?? []).slice(0, life), point];
  for (let tried = 1; ; tried += 1) {
    const played = await play(shop, { ...script, kills });
    const isReached = played.lives[life]?.points.at(-1) === point && played.lives.length > life + 1;
    const violations = violationsOf(shop.services, played);
    if (violations.length > 0) writeStory(point, violations, tell(played));
    if (isReached || violations.length > 0 || tried === TRIES)
      return { verdict: { point, isReached, violations }, played };
  }
}
