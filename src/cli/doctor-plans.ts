import type { Config } from '../config.ts';
import { OperationalError } from '../core/errors.ts';
import type { EngineUse, Finding } from '../core/finding.ts';
import { HOLD_KINDS } from '../core/hold.ts';
import { makePlan, type Situation } from '../core/plan.ts';
import { viewPlan } from '../core/plan-view.ts';
import type { Driver, Host } from '../core/ports.ts';
import { settingsOf } from '../daemon.ts';
import { survey } from '../run/survey.ts';

/** What plans are made from. `held`: the names of what is held right now, and so is not missing. */
export type Ground = {
  readonly host: Host;
  readonly driver: Driver;
  readonly config: Config;
  readonly held: ReadonlySet<string>;
};

const EVERY_USE: readonly EngineUse[] = ['exec', ...HOLD_KINDS];

/**
 * Makes the plan of each operation for each job that hooks and labels name, and does nothing of it. `uses`: what they ask
 * of the engine; everything, where no plan can be made.
 * @throws OperationalError `engine-unavailable`
 */
export async function examinePlans(
  { host, driver, config, held }: Ground,
  signal: AbortSignal,
): Promise<{ readonly findings: readonly Finding[]; readonly uses: readonly EngineUse[] }> {
  try {
    const tools = { host, driver, journal: { holds: () => [] }, settings: settingsOf(config) };
    const found = await survey(tools, signal);
    const situation = { ...found, held: found.view.workloads.filter(({ name }) => held.has(name)) };
    const notes = [...found.view.notes, ...found.notes].map(
      (says): Finding => ({ what: 'labels', level: 'warn', says }),
    );
    const plans = config.operations.map((operation) => examineOperation(operation, situation));
    const uses = new Set(plans.flatMap((plan) => plan.uses));
    return { findings: [...notes, ...plans.flatMap(({ findings }) => findings)], uses: [...uses] };
  } catch (error) {
    if (!(error instanceof OperationalError) || error.code === 'engine-unavailable') throw error;
    return { findings: [{ what: 'plan', level: 'fail', says: error.message }], uses: EVERY_USE };
  }
}

function examineOperation(
  operation: string,
  situation: Situation,
): { readonly findings: readonly Finding[]; readonly uses: readonly EngineUse[] } {
  const findings: Finding[] = [];
  const uses = new Set<EngineUse>();
  const common = new Set([...situation.view.notes, ...situation.notes]);
  for (const job of jobsOf(situation)) {
    const what = job === 'default' ? `plan ${operation}` : `plan ${operation}, job ${job}`;
    try {
      const plan = makePlan({ operation, job }, situation);
      const { notes } = viewPlan(plan, { operation, job, state: 'pre' });
      for (const { kind } of plan.holds) uses.add(kind);
      const isInside = plan.steps.some(({ call }) => call.place.kind === 'workload');
      if (isInside) uses.add('exec');
      const hooks = new Set(plan.steps.map(({ owner }) => owner)).size;
      findings.push({ what, level: 'ok', says: `hooks: ${hooks}, holds: ${plan.holds.length}` });
      for (const says of notes.filter((note) => !common.has(note))) findings.push({ what, level: 'warn', says });
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      for (const use of EVERY_USE) uses.add(use);
      findings.push({ what, level: 'fail', says: error.message });
    }
  }
  return { findings, uses: [...uses] };
}

/** The one that is meant when none is said, and those that hooks and labels name. */
function jobsOf({ hooks, wishes }: Situation): readonly string[] {
  const holds = [...wishes.values()].flatMap(({ hold }) => hold?.jobs ?? []);
  return [...new Set(['default', ...hooks.flatMap(({ jobs }) => jobs ?? []), ...holds])];
}
