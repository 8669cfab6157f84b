import { join } from 'node:path';
import type { Edge } from './edge.ts';
import { type Given, textOf } from './verb.ts';

/** The socket of the shared directory: `--dir`, `SIDEHOOK_DIR`, or where the configuration has it. */
export async function socketOf(
  given: Given,
  { env }: Edge,
): Promise<{ readonly dir: string; readonly socketPath: string }> {
  const dir = textOf(given, 'dir') ?? (env.SIDEHOOK_DIR || undefined) ?? (await configuredDir(env));
  return { dir, socketPath: join(dir, 'sidehook.sock') };
}

async function configuredDir(env: Edge['env']): Promise<string> {
  const { loadConfig } = await import('../config.ts');
  return loadConfig({ env }).config.run.dir;
}
