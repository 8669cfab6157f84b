import { type BoxSpec, drawScenario, type Scenario } from './scenario.ts';
import type { openShelf } from './sidecar.ts';
import { type Result, simulate } from './simulate.ts';

/** How many smaller worlds are tried. */
const MOST_TRIES = 600;

/**
 * Makes a world that breaks a law smaller, for as long as it breaks the same one: without a fault, a client, a hook, a
 * workload, or the engine's whims; each with a few schedules, since with fewer steps the dice fall differently.
 */
async function shrink(scenario: Scenario, shelf: ReturnType<typeof openShelf>): Promise<Scenario> {
  const law = lawOf(await simulate(scenario, shelf));
  let smallest = scenario;
  let tries = 0;
  for (let isSmaller = true; isSmaller && law !== undefined; ) {
    isSmaller = false;
    for (const smaller of smallerThan(smallest)) {
      for (const seed of [smallest.seed, 1, 2]) {
        tries += 1;
        if (tries > MOST_TRIES) return smallest;
        const candidate = { ...smaller, seed };
        if (lawOf(await simulate(candidate, shelf)) !== law) continue;
        smallest = candidate;
        isSmaller = true;
        break;
      }
      if (isSmaller) break;
    }
  }
  return smallest;
}

/** The story of the smallest world that breaks the law that this seed broke. */
export async function explain(seed: number, shelf: ReturnType<typeof openShelf>): Promise<string> {
  const scenario = await shrink(drawScenario(seed), shelf);
  const { violations, story } = await simulate(scenario, shelf, { tells: true });
  const broken = violations.map(({ law, what }) => `broken: ${law}: ${what}`);
  return [`seed ${seed}, made smaller:`, JSON.stringify(scenario), ...story, ...broken].join('\n');
}

function lawOf({ violations }: Result): string | undefined {
  return violations[0]?.law;
}

function* smallerThan(scenario: Scenario): Generator<Scenario> {
  const { faults, clients, hooks, boxes } = scenario;
  for (const fault of faults) yield { ...scenario, faults: faults.filter((one) => one !== fault) };
  for (const client of clients) {
    const isLeft = (fault: object): boolean => !('client' in fault) || fault.client !== client.name;
    if (clients.length > 1)
      yield { ...scenario, clients: clients.filter((one) => one !== client), faults: faults.filter(isLeft) };
  }
  for (const hook of hooks) yield { ...scenario, hooks: hooks.filter((one) => one !== hook) };
  for (const box of boxes) if (boxes.length > 1) yield without(scenario, box);
  if (!scenario.isCalm) yield { ...scenario, isCalm: true };
}

function without(scenario: Scenario, { name }: BoxSpec): Scenario {
  return {
    ...scenario,
    boxes: scenario.boxes
      .filter((box) => box.name !== name)
      .map((box) => ({ ...box, dependsOn: box.dependsOn.filter((other) => other !== name) })),
    hooks: scenario.hooks.filter(({ target }) => target !== name),
    faults: scenario.faults.filter((fault) => !('box' in fault) || fault.box !== name),
  };
}
