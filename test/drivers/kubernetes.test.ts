import { driverContract } from './contract.ts';
import { openKubernetesBench } from './kubernetes-bench.ts';

driverContract('kubernetes, scripted', openKubernetesBench, { kinds: ['scale'] });
