/** From the start of the process to the first answer. */
import { type Extent, inTurn, type Row, timed } from './measure.ts';
import { askBareServer, openBareServer, openSidecar, type SidecarOptions, type Stage } from './stage.ts';

/** Start-up to the answer of the first signal, without an engine and with one, against the bare server's first. */
export async function measureStart(stage: Stage, { repetitions }: Extent): Promise<readonly Row[]> {
  const kinds: readonly (readonly [string, SidecarOptions])[] = [
    ['no engine', {}],
    ['Docker', { project: 'nothing-of-that-name' }],
  ];
  const rows: Row[] = [];
  for (const [name, options] of kinds) {
    const samples = await inTurn(
      repetitions,
      () =>
        untilFirst(
          () => openSidecar(stage, options),
          (sidecar) => sidecar.signal('pre'),
        ),
      () => untilFirst(() => openBareServer(stage, '/bin/true'), askBareServer),
    );
    const row = { work: `start: to the first answer, ${name}`, against: 'bare node:http server' };
    rows.push({ goal: { id: 'G9', most: 2.5 }, ...row, unit: 'ms', ...samples });
  }
  return rows;
}

async function untilFirst<Server extends AsyncDisposable>(
  open: () => Promise<Server>,
  ask: (server: Server) => Promise<void>,
): Promise<number> {
  await using stack = new AsyncDisposableStack();
  return await timed(async () => ask(stack.use(await open())));
}
