// Where things lie in the pack's trajectory, see `trajectory_items`.
@TABLE@
 const F DT=F(dt[0]);
#if STRIDE==1
 const int pack=thread;
 F*Q=(F*)trajectory_+(size_t)pack*items;
#else
 if(thread>=E)return;
 const int pack=thread/W;
 F*Q=(F*)trajectory_+(size_t)pack*items*W+thread%W;
#endif
 const int updates=(substeps+interval-1)/interval;
 F*D=Q+(substeps+1)*NQ*STRIDE; F*A=D+(substeps+1)*ND*STRIDE; F*LL=A+substeps*ND*STRIDE; F*u=LL+updates*NH*STRIDE;
 F*activation=u+ND*STRIDE; F*clipped=activation+NM*STRIDE; F*inside=clipped+NA*STRIDE;
 F*outcome=inside+NA*STRIDE; // 1: the episode goes on, 0: it ended, -1: the state exploded
